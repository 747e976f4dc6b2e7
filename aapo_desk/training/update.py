"""One update of the adapter: backpropagate the algorithm's gradient through micro-batches of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from aapo_desk.algorithms import Advantages, Algorithm, Batch
from aapo_desk.config import OptimizerConfig
from aapo_desk.models.policy import Policy
from aapo_desk.models.room import ran_out
from aapo_desk.training.device.allocator import TornStepError
from aapo_desk.training.device.memory_probe import Phase
from aapo_desk.training.distributed.group import ALONE, Ranks
from aapo_desk.training.forward import Passes, Rollout
from aapo_desk.training.loss_scaling import LEAST, LossScale
from aapo_desk.training.micro_batches import Cost
from aapo_desk.training.nonfinite import NonFinite, broken_gradient, broken_logps, broken_state

T = TypeVar("T")


class Within(Protocol):
    """Runs a part of an update with a token budget, and may repeat it with a smaller one if memory runs out."""

    def __call__(self, phase: Phase, compute: Callable[[int], T]) -> T: ...


@dataclass(frozen=True)
class Attempts:
    """An update's passes through the model, each repeated by ``within`` if memory runs out."""

    passes: Passes
    optimizer: torch.optim.Optimizer
    within: Within | None

    def run(self, phase: Phase, compute: Callable[[int], T]) -> T:
        """Return what ``compute`` returns for the token budget."""
        return self.within(phase, compute) if self.within else compute(self.passes.token_budget)

    def logps(self, rows: Sequence[int], reference: bool = False) -> Tensor:
        """Compute the same as ``Passes.logps``."""
        return self.run("update", lambda budget: replace(self.passes, token_budget=budget).logps(rows, reference))

    def backpropagate(self, gradient: Tensor, rows: Sequence[int], progress: Callable[[float], None]) -> Tensor:
        """Zero the gradients, then do the same as ``Passes.backpropagate``."""

        def back(budget: int) -> Tensor:
            self.optimizer.zero_grad(set_to_none=False)
            return replace(self.passes, token_budget=budget).backpropagate(gradient, rows, progress)

        return self.run("update", back)


@dataclass(frozen=True)
class Update:
    """The result of an update, or of all updates on one rollout together.

    Norms are of the whole adapter; ``applied`` is False if a number was not finite. For several updates, ``loss`` and
    ``grad_norm`` are means, ``update_norm`` is the sum of their norms, ``applied`` says whether all were applied,
    ``broken`` is the worst, and everything else is the first update's.
    """

    advantages: Advantages
    loss: float
    grad_norm: float
    update_norm: float
    applied: bool
    logp_gap: float = math.nan
    """Mean absolute difference of the update's log-probabilities from the rollout's, in nats per token; NaN if none
    were computed."""
    taught: Tensor | None = None
    """[P, G] bool: the rows with a non-zero gradient in the first update."""
    broken: NonFinite | None = None
    """The number that was not finite; None also if only the loss scale was too large, which is then lowered."""


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Return the learning rate of a step from 1 to ``steps``: a linear warm-up, then the schedule.

    The linear and cosine schedules reach 0 after the last step.
    """
    if step <= config.warmup_steps:
        return config.learning_rate * step / (config.warmup_steps + 1)
    share = (step - 1 - config.warmup_steps) / max(1, steps - config.warmup_steps)
    factor = {"constant": 1.0, "linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}[config.schedule]
    return config.learning_rate * factor


def checkpoint_layers(policy: Policy) -> None:
    """Turn on gradient checkpointing: keep each layer's input only, and recompute the rest in the backward pass.

    The model does so only in train mode, so decoding is not affected.
    """
    causal = policy.causal
    # transformers 5.24 introduced the new name, and warns about the old one.
    enable = getattr(causal, "activation_checkpointing_enable", None) or causal.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    # It also lets the embeddings' output require a gradient, which on a frozen base only reentrant checkpointing needs.
    causal.disable_input_require_grads()


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    algorithm: Algorithm,
    rollout: Rollout,
    rewards: Tensor,
    reference_rewards: Tensor | None,
    *,
    rate: float,
    max_grad_norm: float,
    token_budget: int,
    cost: Cost | None = None,
    scale: LossScale | None = None,
    updates: int = 1,
    progress: Callable[[float], None] = lambda _: None,
    ranks: Ranks = ALONE,
    within: Within | None = None,
    broken: NonFinite | None = None,
) -> Update:
    """Take ``updates`` optimiser steps on one rollout. ``rewards`` [P, G] are NaN where unscorable.

    ``cost`` lets completions share their prompt if that is cheaper; None computes every row alone. ``scale`` is used
    and adapted; None leaves the gradient unscaled. Before each of several updates the log-probabilities are computed
    again, without a gradient; those before the first are the old log-probabilities.

    ``within`` runs each pass through the model, and the preparation of each optimiser step (``ready``); by default once
    and with ``token_budget``. ``broken`` is the rollout's non-finite number, if any. If it is given, or if a number of
    the update is not finite, nothing is applied. Raises TornStepError if memory runs out while the adapter changes.
    """
    mask = rollout.mask()
    attempts = Attempts(Passes(policy, rollout, token_budget, cost, ranks), optimizer, within)
    batch = Batch(rewards, mask, reference_rewards)
    counting = [int(row) for row in batch.scorable.reshape(-1).nonzero()]

    if algorithm.needs_reference_logps:
        batch = replace(batch, reference_logps=attempts.logps(counting, reference=True))
    done: list[Update] = []
    for number in range(updates):
        current = None
        if updates > 1 or algorithm.gradient_needs_logps:
            current = attempts.logps(counting)
            if number == 0 and algorithm.needs_old_logps:
                batch = replace(batch, old_logps=current)
        objective = algorithm.objective(batch, torch.zeros_like(mask) if current is None else current)

        # A row whose gradient is exactly 0 adds nothing, and its tokens are already counted in the loss's denominator.
        teaching = [int(row) for row in objective.gradient.any(1).nonzero()]
        gradient = objective.gradient * scale.factor if scale else objective.gradient
        seen = attempts.backpropagate(gradient, teaching, partial(_tell, progress, number, updates))
        loss = objective.loss if current is not None else algorithm.loss(seen, batch, objective.advantages)
        names = {"the reference": batch.reference_logps, "before the update": current, "the update": seen}
        found = broken or broken_logps(names)
        before = attempts.run("optimizer", lambda _: ready(policy, optimizer))
        step = take_step(policy, optimizer, before, float(loss), rate, max_grad_norm, scale, found)
        one = Update(objective.advantages, float(loss), step.norm, step.moved, step.applied, broken=step.broken)
        taught = objective.gradient.any(1).reshape(rewards.shape)
        done.append(replace(one, logp_gap=_gap(rollout, seen, mask, teaching), taught=taught))
    return _together(done)


def _tell(progress: Callable[[float], None], done: int, of: int, share: float) -> None:
    """Report the progress of one update, 0 to 1, as the progress of all updates."""
    progress((done + share) / of)


def _together(done: Sequence[Update]) -> Update:
    """Combine the updates of one rollout into one result."""
    if len(done) == 1:
        return done[0]
    return replace(
        done[0],
        loss=sum(one.loss for one in done) / len(done),
        grad_norm=sum(one.grad_norm for one in done) / len(done),
        update_norm=sum(one.update_norm for one in done),
        applied=all(one.applied for one in done),
        broken=min((one.broken for one in done if one.broken), key=lambda broken: not broken.is_kept, default=None),
    )


def _gap(rollout: Rollout, seen: Tensor, mask: Tensor, rows: list[int]) -> float:
    if rollout.logps is None or not rows:
        return math.nan
    apart = (seen[rows] - rollout.logps[rows, : rollout.width]).abs() * mask[rows]
    return float(apart.sum() / mask[rows].sum())


@dataclass(frozen=True)
class OptimizerStep:
    """The result of an optimiser step: the gradient's norm, how far the adapter moved, and what was not finite.

    ``broken`` is also None if a gradient was only too large for float16's loss scale.
    """

    norm: float
    moved: float
    applied: bool
    broken: NonFinite | None


def ready(policy: Policy, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Snapshot the adapter and pre-allocate what optimizer.step() needs, so that OOM happens before any weight changes.

    Returns the snapshot, a tensor per parameter. Before the first step, memory for AdamW's two moments is allocated and
    freed again, so that the step finds it.
    """
    parameters = list(policy.adapter_parameters().values())
    for parameter in parameters:
        # Without a gradient the optimiser would not update its moments; a step without signal must do so on any path.
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    before = [parameter.detach().clone() for parameter in parameters]
    moments = [torch.empty_like(one) for one in parameters if not optimizer.state.get(one) for _ in range(2)]
    del moments
    return before


def take_step(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    before: Sequence[Tensor],
    loss: float,
    rate: float,
    max_grad_norm: float,
    scale: LossScale | None,
    broken: NonFinite | None = None,
) -> OptimizerStep:
    """Take an optimiser step with the parameters' gradients, unless a number is not finite or ``broken`` names one.

    ``before`` is the snapshot from ``ready`` and is overwritten. ``scale`` is adapted. Raises TornStepError if memory
    runs out while the adapter changes.
    """
    parameters = list(policy.adapter_parameters().values())
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if scale:
        for gradient in gradients:
            gradient.div_(scale.factor)
    # Not clip_grad_norm_, which also clips: it would spread one NaN to every gradient and hide its source.
    norm_tensor = torch.nn.utils.get_total_norm(gradients)
    norm = float(norm_tensor)
    broken = broken or broken_gradient(loss, norm, policy)
    lowers = scale is not None and scale.factor > LEAST
    if scale:
        scale.adapt(norm)
    if broken:
        optimizer.zero_grad(set_to_none=False)
        kept = None if lowers and broken.what == "gradient" else broken
        return OptimizerStep(norm, 0.0, applied=False, broken=kept and (broken_state(policy, optimizer) or kept))
    torch.nn.utils.clip_grads_with_norm_(parameters, max_grad_norm, norm_tensor)
    for group in optimizer.param_groups:
        group["lr"] = rate
    try:
        optimizer.step()
        moved = torch.stack([old.sub_(new.detach()).norm() for new, old in zip(parameters, before, strict=True)]).norm()
        broken = broken_state(policy, optimizer)
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        raise TornStepError(
            "memory ran out while the adapter was being updated, so this step is lost: close other programs that use "
            "this device's memory and resume, which continues from the last checkpoint "
            f"({next(iter(str(error).splitlines()), '')})"
        ) from error
    return OptimizerStep(norm, float(moved), applied=broken is None, broken=broken)
