"""One update of the adapter: the algorithm's gradient sent back through micro-batches of any size."""

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
    """Runs a part of an update with a token budget; where memory runs out, it may run it again with a smaller one."""

    def __call__(self, phase: Phase, compute: Callable[[int], T]) -> T: ...


@dataclass(frozen=True)
class Attempts:
    """The passes of an update through the model, each as often as memory makes it necessary."""

    passes: Passes
    optimizer: torch.optim.Optimizer
    within: Within | None

    def run(self, phase: Phase, compute: Callable[[int], T]) -> T:
        return self.within(phase, compute) if self.within else compute(self.passes.token_budget)

    def logps(self, rows: Sequence[int], reference: bool = False) -> Tensor:
        """As ``Passes.logps``."""
        return self.run("update", lambda budget: replace(self.passes, token_budget=budget).logps(rows, reference))

    def backpropagate(self, gradient: Tensor, rows: Sequence[int], progress: Callable[[float], None]) -> Tensor:
        """As ``Passes.backpropagate``, from a gradient of zero on."""

        def back(budget: int) -> Tensor:
            self.optimizer.zero_grad(set_to_none=False)
            return replace(self.passes, token_budget=budget).backpropagate(gradient, rows, progress)

        return self.run("update", back)


@dataclass(frozen=True)
class Update:
    """What an update did, or what the updates of one rollout did together.

    Norms are of the whole adapter; ``applied`` is False where a number was not finite. Of several updates, ``loss`` and
    ``grad_norm`` are means, ``update_norm`` is the sum of their ways, ``broken`` the worst, all else the first's.
    """

    advantages: Advantages
    loss: float
    grad_norm: float
    update_norm: float
    applied: bool
    logp_gap: float = math.nan
    """Mean distance of the update's log-probs from the rollout's, in nats a token; NaN where nothing was computed."""
    taught: Tensor | None = None
    """[P, G] bool: the rows that the first gradient came from"""
    broken: NonFinite | None = None
    """What was not finite; None also where only the loss scale was too large, which is then lowered."""


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The rate of step 1..steps: a linear warm-up, then the schedule (linear and cosine end at 0 after the last)."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / (config.warmup_steps + 1)
    share = (step - 1 - config.warmup_steps) / max(1, steps - config.warmup_steps)
    factor = {"constant": 1.0, "linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}[config.schedule]
    return config.learning_rate * factor


def checkpoint_layers(policy: Policy) -> None:
    """From now on the update keeps only each layer's input and computes the rest again on its way back.

    The model does so in train mode alone, so decoding stays as it is.
    """
    causal = policy.causal
    # The old name warns from transformers 5.24 on, which brought the new one.
    enable = getattr(causal, "activation_checkpointing_enable", None) or causal.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    # It also makes the embeddings' output want a gradient, which only the reentrant kind needs on a frozen base.
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
    """``updates`` steps of the optimiser on one rollout. ``rewards`` [P, G], NaN where unscorable.

    ``cost`` lets completions share their prompt where that is cheaper; None computes every row alone. ``scale`` is used
    and adapted; None: the gradient goes back as it is. Before each of several updates the log-probs are computed anew,
    without a gradient; those before the first are the old ones.

    ``within`` runs each pass through the model, and what a step of the optimiser makes ready; by default once and with
    ``token_budget``. ``broken``: what of the rollout was not finite. With that, or where a number of its own is not,
    nothing is applied. Raises TornStepError where memory runs out while the adapter changes.
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

        # A row whose gradient is exactly 0 adds nothing; its tokens are in the denominator already.
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
    """A share of one update as that of all."""
    progress((done + share) / of)


def _together(done: Sequence[Update]) -> Update:
    """One rollout's updates as one."""
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
    """A step of the optimiser: the gradient's norm, how far the adapter moved, and what was not finite.

    ``broken`` is None too where a gradient only was too large for float16's loss scale.
    """

    norm: float
    moved: float
    applied: bool
    broken: NonFinite | None


def ready(policy: Policy, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The adapter as it is before a step of the optimiser, and all the memory had that the step takes.

    So memory runs out here, where nothing has changed yet. The first step makes AdamW's two moments, and finds what
    they were tried with.
    """
    parameters = list(policy.adapter_parameters().values())
    for parameter in parameters:
        # An optimiser that sees no gradient would skip its moments; a step without signal must not differ by path.
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
    """A step of the optimiser along the parameters' gradients; none where a number is not finite, as is ``broken``.

    ``before`` is what ``ready`` gave, and is used up. ``scale`` is adapted. Raises TornStepError.
    """
    parameters = list(policy.adapter_parameters().values())
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if scale:
        for gradient in gradients:
            gradient.div_(scale.factor)
    # Not clip_grad_norm_, which does these two: one bad number would leave no other to be told from.
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
            "memory ran out while the adapter was changed, so this step is lost: close what else uses this device's "
            f"memory and resume, which goes on from the last checkpoint ({next(iter(str(error).splitlines()), '')})"
        ) from error
    return OptimizerStep(norm, float(moved), applied=broken is None, broken=broken)
