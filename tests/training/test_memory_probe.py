"""The memory probe measures without side effects; if memory runs out, it makes the plan smaller before the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from aapo_desk.config import RunConfig, resolve
from aapo_desk.models.policy import Policy
from aapo_desk.models.room import shape_of
from aapo_desk.models.sources import ModelError
from aapo_desk.store import RunDirectory, RunReader, RunWriter, create_run, event_words
from aapo_desk.training.control import Control
from aapo_desk.training.device.allocator import Peaks
from aapo_desk.training.device.execution_plan import apply, settled
from aapo_desk.training.device.memory_probe import Longest, Probe, largest, padded, probe
from aapo_desk.training.micro_batches import Cost, micro_batches
from aapo_desk.training.setup import prepared
from aapo_desk.training.trainer import Trainer
from tests.policies import load_tiny

PROMPTS = [[5, 6, 7], [20, 21, 22, 23, 24, 25, 26, 27, 28, 29]]
CHOICES = {
    "token_budget": 128,
    "batch_rows": 256,
    "checkpointing": 0,
    "shadow_weights": 0,
    "fixed_steps": 0,
    "row_mask": 1,
    "own_update": 1,
    "share_prompts": 1,
    "threads": 1,
}


@pytest.fixture
def policy(tiny_model: Path) -> Policy:
    return load_tiny(tiny_model, quantization="nf4")


@pytest.fixture
def config(tiny_config: dict[str, Any]) -> RunConfig:
    return resolve(tiny_config)


def probed(policy: Policy, config: RunConfig, **choices: int) -> Probe:
    return probe(policy, config, shape_of(policy), PROMPTS, CHOICES | choices, apply)


@contextmanager
def memory_for(policy: Policy, tokens: int) -> Iterator[None]:
    """Inside the context, memory runs out if more tokens than this are computed at once."""

    def look(_module: Any, _arguments: Any, given: dict[str, Any]) -> None:
        if given["input_ids"].numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = policy.decoder.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def test_the_largest_pieces_are_at_the_longest_lengths(policy: Policy, config: RunConfig) -> None:
    longest = Longest.of(policy, config, PROMPTS, CHOICES)
    assert longest.prompt == PROMPTS[1]
    # 2 prompts x 4 completions of 6 tokens all fit into the budget of 128.
    assert sum(len(pack.completions) for pack in longest.micro_batch) == 8
    assert {len(completion) for pack in longest.micro_batch for completion in pack.completions} == {6}
    assert padded(longest.micro_batch) <= 128
    assert len(longest.rows) == 2 * 8
    few = Longest.of(policy, config, PROMPTS, CHOICES | {"token_budget": 20, "batch_rows": 3, "share_prompts": 0})
    assert (padded(few.micro_batch), len(few.rows)) == (16, 3)


def test_the_largest_micro_batch_is_no_smaller_than_one_of_shorter_rows(policy: Policy, config: RunConfig) -> None:
    """With shorter prompts fewer completions share one, and their packs may fill the plan better."""
    config = resolve(
        config.model_dump(mode="json"),
        {"rollout.max_new_tokens": 384, "rollout.prompts_per_step": 4, "rollout.group_size": 8},
    )
    cost = Cost(12288, 1)
    for budget in range(500, 16000, 97):
        packs, size, length = largest(175, config, budget, cost)
        probed = packs * (175 + size * length)
        assert probed <= max(budget, 175 + 384)
        for prompt in (20, 60, 100, 140, 175):
            batches = micro_batches([prompt] * 32, [384] * 32, range(32), 8, budget, cost)
            assert max(len(batch) * (prompt + 384 * max(map(len, batch))) for batch in batches) <= 1.15 * probed


def test_nothing_is_left_of_it(policy: Policy, config: RunConfig) -> None:
    before = {name: value.detach().clone() for name, value in policy.adapter_parameters().items()}
    random = torch.get_rng_state()
    found = probed(policy, resolve(config.model_dump(mode="json"), {"lora.dropout": 0.1}))
    assert found.choices == CHOICES
    assert found.smaller == []
    assert found.measured is not None
    assert torch.equal(torch.get_rng_state(), random)
    assert not policy.model.training
    for name, value in policy.adapter_parameters().items():
        assert torch.equal(value, before[name])
        assert value.grad is None


@pytest.mark.parametrize("fixed", [0, 1])
def test_fixed_steps_are_probed_too(policy: Policy, config: RunConfig, fixed: int) -> None:
    found = probed(policy, config, fixed_steps=fixed)
    assert found.choices["fixed_steps"] == fixed


def trained(config: RunConfig, name: str, with_probe: bool) -> RunDirectory:
    run = create_run(config, name)
    store = RunWriter(run)
    control = Control(run, config.run.steps)
    with prepared(config, store, control, with_probe) as ready:
        Trainer(run, config, ready, store, control).train()
    store.close()
    return run


def test_a_run_ends_in_the_same_bits_with_it_as_without(desk_home: Path, config: RunConfig) -> None:
    short = resolve(
        config.model_dump(mode="json"),
        {"run.steps": 2, "model.quantization": "nf4", "lora.dropout": 0.1, "evaluation.problems": 0},
    )
    runs = [trained(short, f"run-{with_probe}", with_probe) for with_probe in (True, False)]
    adapters = [run.checkpoints / "step_000002" / "adapter" / "adapter_model.safetensors" for run in runs]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()
    kinds = [[event.kind for event in RunReader(run).poll().events] for run in runs]
    assert kinds[0] == ["probe", *kinds[1]]


def test_where_memory_runs_out_the_plan_is_halved_until_it_is_enough(policy: Policy, config: RunConfig) -> None:
    with memory_for(policy, 36):
        found = probed(policy, config, share_prompts=0)
    # 8 rows of 16 tokens; then 4; then 2. All 4 prompts of 10 tokens at once; those of 8 rows, of which there are 2.
    assert (found.choices["token_budget"], found.choices["batch_rows"]) == (32, 8)
    assert found.smaller == [
        "the update's micro-batches from 128 to 64 tokens",
        "the update's micro-batches from 64 to 32 tokens",
        "the rows decoded at once from 16 to 8",
    ]
    with memory_for(policy, 36):
        assert probed(policy, config, **found.choices).smaller == []


def test_what_only_saves_time_is_given_up_behind_that(policy: Policy, config: RunConfig) -> None:
    policy.use_shadow()
    hook = policy.decoder.register_forward_pre_hook(lambda *_: _refuse(policy.shadow is not None))
    found = probed(policy, config, shadow_weights=1, token_budget=16)
    hook.remove()
    assert found.choices["shadow_weights"] == 0
    assert policy.shadow is None
    assert found.smaller == ["no dequantized weights are kept"]


def test_layers_are_computed_again_where_a_single_row_is_too_much(policy: Policy, config: RunConfig) -> None:
    layer = policy.decoder.layers[0]
    hook = layer.register_forward_pre_hook(
        lambda *_: _refuse(policy.model.training and not layer.gradient_checkpointing)
    )
    found = probed(policy, config, token_budget=16)
    hook.remove()
    assert found.choices["checkpointing"] == 1
    assert found.smaller == ["gradient checkpointing is turned on"]


def _refuse(full: bool) -> None:
    if full:
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_where_not_even_a_row_fits_the_run_does_not_begin(policy: Policy, config: RunConfig) -> None:
    with (
        memory_for(policy, 12),
        pytest.raises(ModelError, match="the update runs out of memory even with a single row"),
    ):
        probed(policy, config)
    with memory_for(policy, 16):
        probed(policy, config, share_prompts=0)


def test_weights_that_are_demanded_at_hand_are_not_given_up(policy: Policy, config: RunConfig) -> None:
    policy.use_shadow()
    demanded = resolve(config.model_dump(mode="json"), {"rollout.weights": "shadow"})
    with memory_for(policy, 12), pytest.raises(ModelError, match="does not fit"):
        probed(policy, demanded, shadow_weights=1)
    assert policy.shadow is not None


def test_what_was_found_is_put_on_record_once_and_the_smaller_plan_replayed(
    policy: Policy, config: RunConfig, desk_home: Path
) -> None:
    longer = resolve(config.model_dump(mode="json"), {"rollout.max_new_tokens": 12})
    store = RunWriter(create_run(longer))
    with memory_for(policy, 80):  # enough for the preceding comparison with the plain path
        first = settled(store, policy, longer, PROMPTS, lambda _: None)
        assert settled(store, policy, longer, PROMPTS, lambda _: None) == first
    (event,) = RunReader(store.run).poll().events
    store.close()
    assert event.kind == "probe"
    words = event_words(event.kind, event.data)
    assert words.startswith("probe: memory at the longest lengths, not counting the loaded model: update ")
    assert words.endswith(
        ". Out of memory, so the execution plan was reduced: the update's micro-batches from 116 to 58 tokens"
    )
    assert first["token_budget"] == 58


def test_where_the_kernel_does_not_tell_it_is_said(
    policy: Policy, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Peaks, phase: str, progress: float | None = None) -> None:
        raise PermissionError("/proc/self/clear_refs")

    monkeypatch.setattr(Peaks, "enter", refused)
    found = probed(policy, config)
    assert found.measured is None
    assert event_words("probe", found.as_json()) == "probe: the memory of a step cannot be measured on this device"
