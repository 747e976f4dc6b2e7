"""The fast paths on each family of models, two layers of random weights, against the model's own forward.

In float64: log-probs to 1e-9, gradients to 1e-6 relative (norms compute in float32). Qwen3.5's recurrent layers compute
in float32, whatever the model's dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from aapo_desk.models.logprobs import Pack, can_share, pack_logps
from aapo_desk.models.policy import Policy
from aapo_desk.rollout import Completions, Row, Sampling, can_be_fixed, decode, uniforms
from tests.policies import load_tiny

SMALL: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
HEADS: dict[str, Any] = {"head_dim": 16}
GEMMA: dict[str, Any] = HEADS | {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
GRANITE: dict[str, Any] = {
    "shared_intermediate_size": 128,
    "num_local_experts": 0,
    "layer_types": ["full_attention"] * 2,
    "position_embedding_type": "rope",
    "logits_scaling": 3.0,
    "embedding_multiplier": 2.0,
    "attention_multiplier": 0.3,
    "residual_multiplier": 0.5,
    "mamba_n_heads": 4,
}
QWEN3_5: dict[str, Any] = HEADS | {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
EYE = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "vision_use_head": False,
}


def seeing(**sizes: Any) -> Any:
    """Gemma 3 with a vision tower before it."""
    ends = {key: sizes[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return transformers.Gemma3Config(text_config=sizes, vision_config=EYE, mm_tokens_per_image=4, **ends)


FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, {}),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM, {}),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM, HEADS),
    "gemma3": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM, GEMMA),
    "gemma3 that sees": (seeing, transformers.Gemma3ForConditionalGeneration, GEMMA),
    "smollm3": (transformers.SmolLM3Config, transformers.SmolLM3ForCausalLM, {"no_rope_layer_interval": 2}),
    "phi3": (transformers.Phi3Config, transformers.Phi3ForCausalLM, {}),
    "granite": (transformers.GraniteMoeHybridConfig, transformers.GraniteMoeHybridForCausalLM, GRANITE),
    "qwen3_5": (transformers.Qwen3_5TextConfig, transformers.Qwen3_5ForCausalLM, QWEN3_5),
    "lfm2": (transformers.Lfm2Config, transformers.Lfm2ForCausalLM, {"layer_types": ["conv", "full_attention"]}),
}
NOT_ALIKE = ("gemma3_text", "gemma3", "qwen3_5_text", "lfm2")
"""Models whose layers take different masks, or keep another state than keys and values."""
EXACT = {"qwen3_5_text": (1e-5, 1e-4)}
"""How far log-probs and gradients may be apart, where not 1e-9 and 1e-6."""
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [20, 21], [30, 31, 32, 33]]
GROUP = 2
TOKENS = 10
TEMPERATURE = 1.2
ENDS = (2, 17, 45)


def make_family(name: str, tokenizer: Path, folder: Path) -> Path:
    """Put a model of this family there, with the tokenizer of the model in another folder."""
    config, model, extra = FAMILIES[name]
    transformers.AutoTokenizer.from_pretrained(str(tokenizer)).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made: Any = model(config(**SMALL, **extra))
    for key, parameter in made.named_parameters():  # biases and norms that are there must matter
        if key.endswith("bias") or "norm" in key:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def policy(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """In float64, with a trained adapter and several tokens that end a text."""
    folder = make_family(request.param, tiny_model, tmp_path_factory.mktemp(request.param))
    loaded = load_tiny(folder, "float64")
    loaded.eos_ids = ENDS
    return loaded


def test_the_adapter_is_on_every_linear_layer_of_the_text_and_on_no_other(policy: Policy) -> None:
    text = policy.causal.get_decoder()
    linear = sum(isinstance(module, torch.nn.Linear) and "lora" not in name for name, module in text.named_modules())
    assert len(policy.adapter_parameters()) == 2 * linear
    assert all("vision" not in name and "lm_head" not in name for name in policy.adapter_parameters())


def own_logps(policy: Policy, prompt: list[int], completion: list[int], temperature: float = 1.0) -> Tensor:
    """By the model's own forward, one row alone."""
    logits = policy.model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1].double() / temperature
    logps: Tensor = logits.log_softmax(1).gather(1, torch.tensor(completion)[:, None]).squeeze(1)
    return logps


def rollout(
    policy: Policy, rows: list[Row], fixed: bool = False, prompts: Sequence[list[int]] = PROMPTS
) -> Completions:
    numbers = uniforms(len(rows), TOKENS, 3)
    return decode(policy, prompts, rows, TOKENS, Sampling(TEMPERATURE), numbers, fixed=fixed)


@pytest.mark.parametrize("start", [[], [*range(60, 72)]], ids=["nothing in common", "a common start"])
def test_rollouts_of_policy_and_reference_are_of_the_models_own_distribution(policy: Policy, start: list[int]) -> None:
    rows = [Row(prompt, adapter) for adapter in (True, False) for prompt in range(3) for _ in range(GROUP)]
    prompts = [start + prompt for prompt in PROMPTS]
    done = rollout(policy, rows, prompts=prompts)
    assert len(set(done.lengths.tolist())) > 1
    for number, row in enumerate(rows):
        completion = done.row(number)
        with torch.no_grad(), nullcontext() if row.adapter else policy.as_reference():
            own = own_logps(policy, prompts[row.prompt], completion, TEMPERATURE)
        torch.testing.assert_close(done.logps[number, : len(completion)].double(), own, atol=1e-6, rtol=0)


def test_greedy_completions_are_those_of_plain_generation(policy: Policy) -> None:
    done = rollout(policy, [Row(prompt, greedy=True) for prompt in range(3)])
    for number, prompt in enumerate(PROMPTS):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            plain = policy.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=TOKENS,
                do_sample=False,
                eos_token_id=list(ENDS),
            )
        assert done.row(number) == plain[0, len(prompt) :].tolist()


def test_fixed_steps_are_offered_where_the_model_allows_and_give_the_same(policy: Policy) -> None:
    rows = [Row(prompt, adapter) for adapter in (True, False) for prompt in range(3) for _ in range(GROUP)]
    growing, fixed = rollout(policy, rows), rollout(policy, rows, fixed=True)
    assert torch.equal(growing.tokens, fixed.tokens)
    torch.testing.assert_close(growing.logps, fixed.logps, atol=1e-6, rtol=0)
    assert can_be_fixed(policy) == (policy.causal.config.model_type not in NOT_ALIKE)


def gradients(policy: Policy, values: Callable[[], Tensor]) -> list[Tensor]:
    parameters = list(policy.adapter_parameters().values())
    return list(torch.autograd.grad(values().sum(), parameters))


@pytest.mark.parametrize("shadow", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_updates_have_the_models_own_log_probs_and_gradient(policy: Policy, shadow: bool, shared: bool) -> None:
    if shared and not can_share(policy):
        assert policy.causal.config.model_type in NOT_ALIKE
        return
    completions = [[40, 41, 2], [42], [43, 44, 45, 46, 47, 48], [2], [50, 51], [52, 53, 54]]
    packs = [Pack(prompt, completions[2 * number : 2 * number + 2]) for number, prompt in enumerate(PROMPTS)]
    rows = [(pack.prompt, completion) for pack in packs for completion in pack.completions]
    if not shared:
        packs = [Pack(prompt, [completion]) for prompt, completion in rows]
    if shadow:
        policy.use_shadow()
    try:
        with policy.training():
            values = pack_logps(policy, packs, 6)
            ours = gradients(policy, lambda: values)
    finally:
        policy.shadow = None
    own = [own_logps(policy, list(prompt), list(completion)) for prompt, completion in rows]
    apart, turned = EXACT.get(policy.causal.config.model_type, (1e-9, 1e-6))
    for value, expected in zip(values, own, strict=True):
        torch.testing.assert_close(value[: len(expected)].detach(), expected.detach(), atol=apart, rtol=0)
    plain = gradients(policy, lambda: torch.cat(own))
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, atol=turned * float(other.abs().max()), rtol=0)
