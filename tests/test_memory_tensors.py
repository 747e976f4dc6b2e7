"""The memory estimate against the tensors of real models: parameters, caches, what autograd saves, peaks."""

from __future__ import annotations

import copy
import inspect
import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import TaskType, get_peft_model
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma3Config,
    Gemma3TextConfig,
    GraniteMoeHybridConfig,
    Lfm2Config,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3_5TextConfig,
    Qwen3Config,
    SmolLM3Config,
)

from aapo_desk import memory
from aapo_desk.config import resolve
from aapo_desk.memory import DRAW_BYTES, SORTED_DRAW_BYTES, ModelShape, Settings, estimate, kept_bytes
from aapo_desk.models.logprobs import Pack, can_share, pack_logps
from aapo_desk.models.policy import Policy
from aapo_desk.models.room import shape_of
from aapo_desk.rollout import Row, Sampling, decode, uniforms
from aapo_desk.rollout.cache import RoomyLayer, roomy_cache
from aapo_desk.training.device.memory_probe import Longest
from aapo_desk.training.update import checkpoint_layers
from tests.policies import load_tiny
from tests.probed import LENGTHS, probed

CONFIG = resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}})
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
HEADLESS = {key: SIZES[key] for key in SIZES if key != "head_dim"}
FAMILIES = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=False),
    "llama with biases": LlamaConfig(**SIZES, tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    "qwen2": Qwen2Config(**HEADLESS, tie_word_embeddings=False),
    "qwen2 with a window": Qwen2Config(
        **SIZES, tie_word_embeddings=True, use_sliding_window=True, sliding_window=9, max_window_layers=1
    ),
    "qwen3": Qwen3Config(**SIZES, tie_word_embeddings=True),
    "gemma3": Gemma3TextConfig(**SIZES, sliding_window=8, layer_types=["sliding_attention"] * 3 + ["full_attention"]),
    "smollm3": SmolLM3Config(**SIZES),
    "phi3": Phi3Config(**HEADLESS),
    "phi3 with a window": Phi3Config(**HEADLESS, sliding_window=9, tie_word_embeddings=True),
    "granite": GraniteMoeHybridConfig(
        **HEADLESS,
        shared_intermediate_size=96,
        num_local_experts=0,
        layer_types=["full_attention"] * 4,
        mamba_n_heads=4,
    ),
}
HYBRIDS = {
    "qwen3.5": Qwen3_5TextConfig(
        **SIZES,
        linear_key_head_dim=16,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        tie_word_embeddings=True,
    ),
    "lfm2": Lfm2Config(**HEADLESS, layer_types=["conv", "full_attention", "conv", "conv"], block_multiple_of=32),
}
EYE = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "vision_use_head": False,
}
GEMMA_THAT_SEES = Gemma3Config(text_config=FAMILIES["gemma3"].to_dict(), vision_config=EYE, mm_tokens_per_image=4)
families = pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)


def build(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def adapted(config: PreTrainedConfig, dtype: torch.dtype) -> Policy:
    base = build(config, dtype)
    base.requires_grad_(False)
    settings = PeftLoraConfig(r=4, target_modules="all-linear", task_type=TaskType.CAUSAL_LM)
    return Policy(get_peft_model(base, settings), None, torch.device("cpu"), eos_ids=(-1,), pad_id=0)


@pytest.mark.parametrize("config", [*FAMILIES.values(), *HYBRIDS.values()], ids=[*FAMILIES, *HYBRIDS])
def test_parameters_are_those_of_the_model(config: PreTrainedConfig) -> None:
    shape = ModelShape.from_config(config.to_dict())
    with torch.device("meta"):
        model = build(config)
    head = model.get_output_embeddings()
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head)
    assert shape.linear == linear
    assert shape.other == sum(parameter.numel() for parameter in model.parameters()) - linear
    some = list(shape.targets)[::2]
    few = get_peft_model(copy.deepcopy(model), PeftLoraConfig(r=3, target_modules=some, task_type=TaskType.CAUSAL_LM))
    assert 3 * shape.adapter(some) == sum(p.numel() for p in few.parameters() if p.requires_grad)
    lora = get_peft_model(model, PeftLoraConfig(r=3, target_modules="all-linear", task_type=TaskType.CAUSAL_LM))
    assert 3 * shape.lora_per_rank == sum(p.numel() for p in lora.parameters() if p.requires_grad)
    assert set(shape.targets) == {name.split(".")[-2] for name, _ in lora.named_modules() if name.endswith("lora_A")}


def test_a_vision_tower_is_counted_apart() -> None:
    shape = ModelShape.from_config(GEMMA_THAT_SEES.to_dict())
    with torch.device("meta"):
        model = build(GEMMA_THAT_SEES)
    head = model.get_output_embeddings()
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head)
    assert shape.linear == ModelShape.from_config(FAMILIES["gemma3"].to_dict()).linear
    assert shape.linear + shape.frozen == linear
    assert shape.other == sum(parameter.numel() for parameter in model.parameters()) - linear


@pytest.mark.parametrize("config", HYBRIDS.values(), ids=HYBRIDS)
def test_the_state_is_that_of_the_model(config: PreTrainedConfig) -> None:
    cache = DynamicCache(config=config)
    decoder = build(config).base_model
    name = "cache" if "cache" in inspect.signature(type(decoder).forward).parameters else "past_key_values"
    decoder(torch.ones(3, 5, dtype=torch.long), use_cache=True, **{name: cache})
    layers: list[Any] = [layer for layer in cache.layers if hasattr(layer, "conv_states")]
    held = sum(2 * state.numel() for layer in layers for state in layer.conv_states.values())
    recurrent = [state for layer in layers for state in layer.recurrent_states.values() if state is not None]
    held += sum(state.nbytes for state in recurrent)
    shape = ModelShape.from_config(config.to_dict())
    assert 3 * shape.fixed_state == held
    assert len(layers) == shape.layers - shape.full_layers


@families
@pytest.mark.parametrize("tokens", [5, 20])
def test_the_cache_is_that_of_the_model(config: PreTrainedConfig, tokens: int) -> None:
    shape = ModelShape.from_config(config.to_dict())
    cache = DynamicCache(config=config)
    read = torch.zeros(3, shape.kv_heads, tokens, shape.head_dim)
    for layer in range(shape.layers):
        cache.update(read, read, layer)
    held = sum(2 * layer.keys.numel() * 4 for layer in cache.layers)  # type: ignore[union-attr, misc]
    estimated = estimate(shape, settings(rows=3, prompt_tokens=tokens, completion_tokens=0)).cache
    # A full sliding layer holds what the next token still sees: one token less than its window.
    spare = 3 * shape.sliding_layers * 2 * 4 * shape.keys if tokens >= shape.window else 0
    assert estimated - spare == held


def settings(**values: Any) -> Settings:
    """Float32 without quantisation, with the adapter of ``adapted``."""
    plain = {"rank": 4, "prompt_tokens": 1, "completion_tokens": 1, "rows": 1, "tokens": 1, "scored": 1, "longest": 1}
    return Settings(**plain | {"number": 4, "nf4": False} | values)


def saved_bytes(policy: Policy, packs: list[Pack], ours: bool = False) -> int:
    """Return what autograd saves of a forward pass, by peft or ``ours``: each storage once, without the model's own."""
    own = {value.untyped_storage().data_ptr() for value in (*policy.model.parameters(), *policy.model.buffers())}
    saved: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    policy.model.train()
    with policy.training() if ours else nullcontext(), torch.autograd.graph.saved_tensors_hooks(note, lambda one: one):
        logps = pack_logps(policy, packs, 16)
    del logps
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.mark.parametrize(("dtype", "ours"), [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_a_layer_keeps_of_a_token_what_autograd_saves(family: str, dtype: torch.dtype, ours: bool) -> None:
    """By peft, with copies in float32 of what goes into the adapter; by our own layers, without."""
    packs = [Pack([5] * 32, [[6] * 16] * 6)]

    def saved(layers: int) -> int:
        sizes = FAMILIES[family].to_dict() | {"num_hidden_layers": layers, "layer_types": None}
        return saved_bytes(adapted(type(FAMILIES[family])(**sizes), dtype), packs, ours)

    shape = ModelShape.from_config(FAMILIES[family].to_dict())
    multiplied = dtype.itemsize if ours else None
    kept = kept_bytes(shape, settings(number=dtype.itemsize, multiplied_number=multiplied, tokens=128, longest=128))
    # The pairs of A and B in 16 bits, and what comes out of A (4 numbers a token), are no part of it.
    apart = 2 * 4 * (7 + shape.adapter(()) / shape.layers / 128) if ours else 0
    assert kept + apart == pytest.approx((saved(3) - saved(1)) / 2 / 128, rel=0.05)


@pytest.mark.parametrize("family", ["phi3", "granite", *HYBRIDS])
def test_fused_and_recurrent_layers_keep_about_what_is_estimated(family: str) -> None:
    config = (FAMILIES | HYBRIDS)[family]
    packs = [Pack([5] * 112, [[6] * 16])] * 2

    def saved(times: int) -> int:
        types = (config.layer_types or ["full_attention"] * 4) * times if family != "phi3" else None
        sizes = config.to_dict() | {"num_hidden_layers": 4 * times, "layer_types": types}
        return saved_bytes(adapted(type(config)(**sizes), torch.bfloat16), packs)

    kept = kept_bytes(ModelShape.from_config(config.to_dict()), settings(number=2, tokens=256, longest=128))
    assert 0.9 < kept / ((saved(2) - saved(1)) / 4 / 256) < 1.3


def allocated(run: Callable[[], object], folder: Path) -> int:
    """The most bytes of tensors that ``run`` holds at once, over what there was before."""
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    held = most = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most


BIG = LlamaConfig(**SIZES | {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6, "vocab_size": 2048})


@pytest.mark.parametrize(
    ("dtype", "checkpointing", "at_once", "completions"),
    [
        (torch.float32, False, 1 << 25, 4),
        (torch.float32, False, 1 << 16, 4),
        (torch.float32, False, 1 << 16, 8),
        (torch.float32, True, 1 << 25, 4),
        (torch.float32, True, 1 << 16, 4),
        (torch.bfloat16, False, 1 << 16, 4),
    ],
)
def test_an_update_allocates_what_is_estimated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    checkpointing: bool,
    at_once: int,
    completions: int,
) -> None:
    policy = adapted(BIG, dtype)
    if checkpointing:
        checkpoint_layers(policy)
    policy.model.train()
    monkeypatch.setitem(memory.LOGITS_AT_ONCE, "cpu", at_once)
    packs = [Pack([5] * 64, [[6] * (192 // completions)] * completions)] * 2

    def micro_batch() -> None:
        pack_logps(policy, packs, 192).sum().backward()

    sizes = settings(number=dtype.itemsize, tokens=512, scored=384, longest=256, logits_at_once=at_once)
    estimated = estimate(ModelShape.from_config(BIG.to_dict()), replace(sizes, checkpointing=checkpointing))
    assert allocated(micro_batch, tmp_path) == pytest.approx(estimated.update - estimated.resident, rel=0.1)


@pytest.mark.parametrize("reference", [False, True])
def test_a_pass_before_the_update_allocates_less_than_the_smallest_update(tmp_path: Path, reference: bool) -> None:
    """Old or reference log-probs of the same micro-batch: so the update's peak stays the estimate's for either."""
    policy = adapted(BIG, torch.float32)
    packs = [Pack([5] * 64, [[6] * 48] * 4)] * 2

    def before() -> None:
        with torch.no_grad(), policy.as_reference() if reference else nullcontext():
            pack_logps(policy, packs, 192)

    sizes = settings(number=4, tokens=512, scored=384, longest=256, logits_at_once=1 << 25, checkpointing=True)
    estimated = estimate(ModelShape.from_config(BIG.to_dict()), sizes)
    assert allocated(before, tmp_path) < 0.9 * (estimated.update - estimated.resident)


@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize(("prompt", "new"), [(64, 32), (200, 2)])
def test_a_rollout_allocates_what_is_estimated(tmp_path: Path, top_p: float, prompt: int, new: int) -> None:
    policy = adapted(BIG, torch.float32)
    rows = [Row(number, adapter) for adapter in (True, False) for number in range(6)]

    prompts = [[5 + number] * prompt for number in range(6)]

    def rollout() -> None:
        decode(policy, prompts, rows, new, Sampling(1.0, top_p), uniforms(12, new, 0))

    draw = SORTED_DRAW_BYTES if top_p < 1 else DRAW_BYTES
    sizes = settings(rows=12, prompt_tokens=prompt, completion_tokens=new, draw_bytes=draw)
    estimated = estimate(ModelShape.from_config(BIG.to_dict()), sizes)
    assert allocated(rollout, tmp_path) == pytest.approx(estimated.rollout - estimated.resident, rel=0.15)


MIDDLING: dict[str, PreTrainedConfig] = {
    "qwen3": Qwen3Config(
        **SIZES
        | {"vocab_size": 8000, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "head_dim": 64},
        tie_word_embeddings=False,
    ),
    "gemma3": Gemma3TextConfig(
        **SIZES
        | {"vocab_size": 16000, "hidden_size": 256, "intermediate_size": 1536, "num_hidden_layers": 6, "head_dim": 64}
        | {"num_key_value_heads": 1},
        sliding_window=128,
        layer_types=["sliding_attention"] * 5 + ["full_attention"],
    ),
}
"""Random models whose weights take some tens of MB."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """The folders they are in, by name."""
    found = {name: tmp_path_factory.mktemp(name) for name in MIDDLING}
    for name, folder in found.items():
        build(MIDDLING[name]).save_pretrained(folder)
        for file in tiny_model.iterdir():
            if "token" in file.name:
                shutil.copy(file, folder)
    return found


@pytest.fixture(scope="module", params=MIDDLING)
def middling(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Policy:
    """One of them in NF4, as a run loads it."""
    return load_tiny(folders[request.param], quantization="nf4", trained=False)


def trained(policy: Policy) -> torch.optim.Optimizer:
    """The optimizer after a step on gradients of zeros, which are left."""
    parameters = list(policy.adapter_parameters().values())
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0, fused=True)
    optimizer.step()
    return optimizer


def test_every_term_that_stays_is_what_the_tensors_hold(middling: Policy) -> None:
    config = resolve(CONFIG.model_dump(mode="json"), {"lora.r": 4})
    found = estimate(shape_of(middling), Settings.of(config, "cpu"))
    parameters = middling.adapter_parameters().values()
    optimizer = trained(middling)
    held = {value.data_ptr(): value for name, value in middling.causal.state_dict().items() if "lora" not in name}
    weights = sum(value.nbytes for value in held.values())
    state = sum(value.nbytes for held in optimizer.state.values() for value in held.values())
    assert found.weights == pytest.approx(weights, rel=0.01)
    assert found.adapter == sum(parameter.nbytes for parameter in parameters)
    assert found.gradient == sum(parameter.grad.nbytes for parameter in parameters if parameter.grad is not None)
    assert found.optimizer == pytest.approx(state, rel=0.01)
    for parameter in parameters:
        parameter.grad = None


@pytest.mark.parametrize(("prompt", "new"), [(20, 30), (150, 250)])
def test_a_rollouts_cache_is_what_its_buffers_hold(middling: Policy, prompt: int, new: int) -> None:
    shape = shape_of(middling)
    cache: Any = roomy_cache(middling.causal.config, prompt + new)
    for tokens in (prompt, *[1] * new):
        read = torch.zeros(3, shape.kv_heads, tokens, shape.head_dim)
        for layer in range(shape.layers):
            cache.update(read, read, layer)
    held = [
        buffer.nbytes
        for layer in cache.layers
        for buffer in (layer.buffers if isinstance(layer, RoomyLayer) else (layer.keys, layer.values))
        if buffer is not None
    ]
    found = estimate(shape, settings(rows=3, prompt_tokens=prompt, completion_tokens=new))
    assert found.cache == pytest.approx(sum(held), rel=0.01)


def test_weights_kept_at_hand_take_what_is_estimated(middling: Policy) -> None:
    found = estimate(shape_of(middling), settings(nf4=True, shadow=True, packed=True))
    middling.use_shadow()
    assert middling.shadow is not None
    head = middling.shadow.head
    held = [*middling.shadow.layers.values(), *([head] if head else [])]
    middling.shadow = None
    # What oneDNN packs says of itself only its shape.
    numbers = sum(
        weight.weight.numel() + (0 if weight.transposed is None else weight.transposed.numel()) for weight in held
    )
    assert found.shadow == 4 * numbers


@pytest.mark.parametrize("shadow", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_an_update_of_four_bit_weights_allocates_what_is_estimated(
    tmp_path: Path, middling: Policy, length: int, shadow: bool
) -> None:
    config = resolve(CONFIG.model_dump(mode="json"), {"lora.r": 4, "rollout.max_new_tokens": length})
    choices = {"token_budget": 512, "batch_rows": 64, "checkpointing": 0, "shadow_weights": int(shadow)}
    choices |= {"share_prompts": int(can_share(middling))}
    longest = Longest.of(middling, config, [[5] * 60], choices)
    if shadow:
        middling.use_shadow()
    held = allocated(lambda: longest.update(middling, config), tmp_path)
    middling.shadow = None
    middling.model.zero_grad(set_to_none=True)
    found = estimate(shape_of(middling), longest.settings(config, "cpu", choices))
    assert held == pytest.approx(found.update - found.resident, rel=0.1)


@pytest.mark.slow
def test_an_updates_measured_peak_is_what_is_estimated(folders: dict[str, Path]) -> None:
    for name, by_length in zip(folders, probed(list(folders.values())), strict=True):
        for length, found in by_length.items():
            measured, estimated = found["measured"]["update"], found["estimated"]["update"]
            assert measured == pytest.approx(estimated, rel=0.2), f"{name}, {length} tokens"
