"""Loss scaling keeps the gradient, survives an overflow, and is restored from a checkpoint."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aapo_desk import checkpoint as checkpoints
from aapo_desk.algorithms import aapo
from aapo_desk.config import resolve
from aapo_desk.models.policy import Policy
from aapo_desk.store import RunDirectory, RunReader, RunWriter, create_run
from aapo_desk.training.control import Control
from aapo_desk.training.forward import Rollout
from aapo_desk.training.loss_scaling import FIRST, GOOD_STEPS, LEAST, MOST, LossScale
from aapo_desk.training.setup import prepared
from aapo_desk.training.trainer import Trainer
from aapo_desk.training.update import Update, update
from tests.policies import load_tiny

COMPLETIONS = [[20, 21, 22, 2], [23, 2], [24, 25, 26, 27, 28], [29]]
ROLLOUT = Rollout([[5, 6, 7]] * 4, COMPLETIONS, temperature=1.0, group_size=4)
REWARDS = torch.tensor([[1.0, 0.0, 0.5, 1.0]], dtype=torch.float64)
REFERENCE = torch.tensor([[0.0, 1.0, 0.5, 0.0]], dtype=torch.float64)


def optimizer_of(policy: Policy) -> torch.optim.Optimizer:
    return torch.optim.AdamW(policy.adapter_parameters().values(), weight_decay=0.0)


def step(policy: Policy, optimizer: torch.optim.Optimizer, scale: LossScale | None, smaller: float = 1.0) -> Update:
    """Run one update with the loss divided by ``smaller``, as in a step with that many times the tokens."""
    algorithm = aapo.make()
    loss = algorithm.loss
    return update(
        policy, optimizer, replace(algorithm, loss=lambda *seen: loss(*seen) / smaller), ROLLOUT, REWARDS, REFERENCE,
        rate=1e-3, max_grad_norm=1.0, token_budget=64, scale=scale,
    )  # fmt: skip


def gradients(policy: Policy) -> torch.Tensor:
    return torch.cat([value.grad.flatten() for value in policy.adapter_parameters().values()])  # type: ignore[union-attr]


def weights(policy: Policy) -> torch.Tensor:
    return torch.cat([value.detach().flatten().clone() for value in policy.adapter_parameters().values()])


def test_the_gradient_and_the_step_are_those_without_a_scale(tiny_model: Path) -> None:
    plain, scaled = load_tiny(tiny_model), load_tiny(tiny_model)
    one = step(plain, optimizer_of(plain), None)
    other = step(scaled, optimizer_of(scaled), LossScale(2.0**10))
    assert one.grad_norm > 0.01
    assert torch.equal(gradients(scaled), gradients(plain))  # multiplying by a power of two is exact
    assert torch.equal(weights(scaled), weights(plain))
    assert (other.grad_norm, other.loss, other.update_norm) == (one.grad_norm, one.loss, one.update_norm)


def test_gradients_too_small_for_float16_arrive_with_a_scale_and_not_without(tiny_model: Path) -> None:
    def gradient(dtype: Any, scale: LossScale | None) -> torch.Tensor:
        policy = load_tiny(tiny_model, dtype)
        assert {value.dtype for value in policy.adapter_parameters().values()} == {torch.float32}
        step(policy, torch.optim.SGD(policy.adapter_parameters().values(), lr=0.0), scale, smaller=2.0**14)
        return gradients(policy)

    exact = gradient("float32", None)
    scaled, plain = (float((gradient("float16", scale) - exact).norm() / exact.norm()) for scale in (LossScale(), None))
    assert scaled < 0.02
    assert plain > 0.2


def test_an_overflow_leaves_the_step_out_halves_the_factor_and_is_counted(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model, "float16")
    optimizer, scale, before = optimizer_of(policy), LossScale(MOST), weights(policy)
    factors = []
    for _ in range(20):
        factors.append(scale.factor)
        done = step(policy, optimizer, scale)
        if done.applied:
            break
        assert not math.isfinite(done.grad_norm)
        assert torch.equal(weights(policy), before)
        assert not optimizer.state
    assert done.applied
    assert len(factors) > 2
    assert factors == [MOST / 2**number for number in range(len(factors))]
    assert scale == LossScale(factors[-1], good=1, skipped=len(factors) - 1)
    assert not torch.equal(weights(policy), before)


@pytest.mark.parametrize(("factor", "told"), [(2 * LEAST, False), (LEAST, True)])
def test_a_gradient_that_no_smaller_factor_would_mend_is_told(tiny_model: Path, factor: float, told: bool) -> None:
    policy = load_tiny(tiny_model, "float16")
    done = step(policy, optimizer_of(policy), LossScale(factor), smaller=1e-30)
    assert not done.applied
    assert (done.broken is not None and done.broken.what == "gradient") == told


def test_the_factor_rises_after_good_steps_and_keeps_to_its_bounds() -> None:
    scale = LossScale()
    for _ in range(GOOD_STEPS - 1):
        scale.adapt(0.5)
    scale.adapt(0.0)  # a zero gradient does not count
    assert scale.factor == FIRST
    scale.adapt(0.5)
    assert scale == LossScale(2 * FIRST)
    for _ in range(100):
        scale.adapt(math.nan)
    assert scale == LossScale(LEAST, skipped=100)
    for _ in range(30 * GOOD_STEPS):
        scale.adapt(1.0)
    assert scale.factor == MOST


def test_training_goes_on_from_a_checkpoint_with_the_same_factor_bit_for_bit(tiny_model: Path, tmp_path: Path) -> None:
    policy = load_tiny(tiny_model, "float16")
    optimizer, scale = optimizer_of(policy), LossScale(MOST, good=GOOD_STEPS - 2)
    for _ in range(12):
        step(policy, optimizer, scale)
    assert scale.skipped
    scale.good = GOOD_STEPS - 1  # it rises in the next step
    saved = checkpoints.save(tmp_path, 12, policy, optimizer, {"threads": 1}, scale.as_json())
    for _ in range(3):
        step(policy, optimizer, scale)

    other, state = load_tiny(tiny_model, "float16", trained=False), saved.read_state()
    other_optimizer, restored = optimizer_of(other), LossScale()
    checkpoints.restore(saved, state, other, other_optimizer)
    restored.restore(state["loss_scale"])
    for _ in range(3):
        step(other, other_optimizer, restored)
    assert restored == scale
    assert torch.equal(weights(other), weights(policy))


def train(run: RunDirectory) -> None:
    """Train the run to its end in this process."""
    config = run.read_config()
    store = RunWriter(run)
    with Control(run, config.run.steps) as control, prepared(config, store, control) as ready:
        Trainer(run, config, ready, store, control).train()
    store.close()


def test_a_run_in_float16_keeps_its_scale_over_a_resume(desk_home: Path, tiny_config: dict[str, Any]) -> None:
    changes = {"model.compute_dtype": "float16", "evaluation.problems": 0, "run.steps": 2}
    run = create_run(resolve(tiny_config, changes))
    train(run)
    first, last = (run.checkpoints / f"step_00000{number}" for number in (1, 2))
    ended = (last / "adapter" / "adapter_model.safetensors").read_bytes()
    metrics = [data for _, _, data in RunReader(run).poll().metrics]
    assert [data["loss_scale"] for data in metrics] == [FIRST, FIRST]
    assert [data["loss_scale_skipped"] for data in metrics] == [0, 0]
    assert json.loads((last / "state.json").read_text())["loss_scale"]["good"] == 2

    # As if the run had been killed after its first checkpoint.
    state = json.loads((first / "state.json").read_text())
    shutil.rmtree(last)
    train(run)
    assert (last / "adapter" / "adapter_model.safetensors").read_bytes() == ended
    assert json.loads((last / "state.json").read_text())["loss_scale"] == state["loss_scale"] | {"good": 2}


@pytest.mark.parametrize(("dtype", "scaled"), [("float16", True), ("bfloat16", False), ("float32", False)])
def test_only_float16_is_scaled(tiny_model: Path, dtype: Any, scaled: bool) -> None:
    assert (LossScale.for_policy(load_tiny(tiny_model, dtype)) is not None) == scaled
