"""Fast paths that are right are used; one that is wrong is found and not used, and the run's numbers stay right."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aapo_desk.models import logprobs
from aapo_desk.models.policy import Policy
from aapo_desk.models.rows import RowMask
from aapo_desk.models.shadow import FourBitWeight, ShadowWeight
from aapo_desk.rollout import Row, Sampling, decode, trial, uniforms
from aapo_desk.rollout.captured import FixedBatch
from aapo_desk.rollout.trial import Workload
from aapo_desk.rollout.verify import Verdict, check_backend, verify_fast_paths
from tests.policies import load_tiny

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [20, 21]]
CHOICES = {"shadow_weights": 1, "fixed_steps": 1, "share_prompts": 1, "token_budget": 64}
SAMPLING = Sampling(1.1)
WORKLOAD = Workload(PROMPTS, group_size=2, max_new_tokens=100, batch_rows=8)


def verify(policy: Policy, choices: dict[str, int] = CHOICES, workload: Workload = WORKLOAD) -> Verdict:
    return verify_fast_paths(policy, workload, SAMPLING, choices)


@pytest.fixture
def policy(tiny_model: Path) -> Policy:
    return load_tiny(tiny_model, quantization="nf4", trained=False)


def test_right_paths_are_kept_and_the_adapter_is_as_it_was(policy: Policy) -> None:
    before = {name: value.detach().clone() for name, value in policy.adapter_parameters().items()}
    verdict = verify(policy)
    assert verdict.choices == CHOICES
    assert verdict.refused == {}
    assert policy.shadow is not None
    assert policy.masks_rows
    for name, value in policy.adapter_parameters().items():
        assert torch.equal(value, before[name])
        assert value.grad is None


def test_right_paths_are_kept_in_float16_too(tiny_model: Path) -> None:
    half = load_tiny(tiny_model, "float16", "nf4", trained=False)
    assert verify(half).refused == {}


def test_one_prompt_is_enough(policy: Policy) -> None:
    assert verify(policy, workload=replace(WORKLOAD, prompts=PROMPTS[:1])).refused == {}


def wrong_product(self: ShadowWeight, inputs: Tensor, bias: Tensor | None) -> Tensor:
    return right_product(self, inputs, bias) * 1.05


def wrong_way_back(self: ShadowWeight, gradient: Tensor) -> Tensor:
    return right_way_back(self, gradient) * 0.9


right_product, right_way_back = ShadowWeight.linear, ShadowWeight.backward


@pytest.mark.parametrize(
    ("name", "wrong", "reason"),
    [
        ("linear", wrong_product, "differs from the plain path on this device in"),
        ("backward", wrong_way_back, "relative error of the gradient"),
    ],
)
def test_wrong_shadow_weights_are_left(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, name: str, wrong: object, reason: str
) -> None:
    monkeypatch.setattr(ShadowWeight, name, wrong)
    verdict = verify(policy)
    assert verdict.choices == CHOICES | {"shadow_weights": 0}
    assert list(verdict.refused) == ["shadow_weights"]
    assert verdict.refused["shadow_weights"].startswith(
        "computing with dequantized weights differs from the plain path"
    )
    assert reason in verdict.refused["shadow_weights"]
    assert policy.shadow is None


def test_a_wrong_gradient_of_our_own_layers_is_left(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    right = FourBitWeight.backward
    monkeypatch.setattr(FourBitWeight, "backward", lambda self, gradient: right(self, gradient) * 0.9)
    verdict = verify(policy, CHOICES | {"shadow_weights": 0})
    assert verdict.choices["own_update"] == 0
    assert not policy.own_update
    assert list(verdict.refused) == ["own_update"]
    assert "the gradient by our own layers differs" in verdict.refused["own_update"]


def test_a_row_mask_that_is_bypassed_gives_each_side_a_batch_of_its_own(
    tiny_model: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowMask, "apply", lambda self, output: output)
    verdict = verify(policy)
    assert verdict.choices["row_mask"] == 0
    trained = load_tiny(tiny_model)
    rows = [Row(prompt, adapter, greedy=True) for adapter in (True, False) for prompt in (0, 1)]
    monkeypatch.undo()
    masked = decode(trained, PROMPTS, rows, 6, SAMPLING, uniforms(4, 6, 0))
    trained.masks_rows = False
    for fixed in (False, True):
        apart = decode(trained, PROMPTS, rows, 6, SAMPLING, uniforms(4, 6, 0), fixed=fixed)
        assert torch.equal(apart.tokens, masked.tokens)


def test_a_wrong_mask_behind_shared_prompts_is_found(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    right = logprobs.block_mask

    def everything_before(packs: list[logprobs.Pack], longest: int) -> tuple[Tensor, Tensor]:
        mask, positions = right(packs, longest)
        return torch.ones_like(mask).tril(), positions

    monkeypatch.setattr(logprobs, "block_mask", everything_before)
    verdict = verify(policy)
    assert verdict.choices == CHOICES | {"share_prompts": 0}


def test_a_wrong_decode_step_is_found(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    right = FixedBatch.advance

    def of_a_wrong_token(self: FixedBatch) -> None:
        self.next.add_(1).remainder_(300)
        right(self)

    monkeypatch.setattr(FixedBatch, "advance", of_a_wrong_token)
    verdict = verify(policy)
    assert verdict.choices == CHOICES | {"fixed_steps": 0}


@pytest.fixture
def foreign(policy: Policy) -> Policy:
    """One whose layers another library computes."""
    policy.backend = "unsloth"
    policy.masks_rows = policy.own_update = False
    return policy


def test_layers_of_another_library_are_not_doubted_where_all_agrees(foreign: Policy) -> None:
    before = {name: value.detach().clone() for name, value in foreign.adapter_parameters().items()}
    assert check_backend(foreign, WORKLOAD, SAMPLING) is None
    choices = {"row_mask": 0, "own_update": 0, "share_prompts": 1, "fixed_steps": 1}
    assert verify(foreign, choices).choices == choices
    assert all(torch.equal(value, before[name]) for name, value in foreign.adapter_parameters().items())


def test_an_adapter_that_stays_on_for_the_reference_is_doubted(
    foreign: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Policy, "as_reference", lambda self: nullcontext())
    reason = check_backend(foreign, WORKLOAD, SAMPLING)
    assert reason
    assert "does not switch the adapter off" in reason


def test_decoding_that_differs_from_the_own_forward_is_doubted(
    foreign: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Policy.logits
    monkeypatch.setattr(Policy, "logits", lambda self, hidden: right(self, hidden) * 1.5)
    reason = check_backend(foreign, WORKLOAD, SAMPLING)
    assert reason
    assert "decoding differs" in reason


def test_a_gradient_that_differs_from_the_own_forwards_is_doubted(
    foreign: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = logprobs.pack_logps
    monkeypatch.setattr(trial, "pack_logps", lambda *given: right(*given) * 0.5)
    reason = check_backend(foreign, WORKLOAD, SAMPLING)
    assert reason
    assert "its gradient differs" in reason
