"""One update of the adapter: the algorithm's gradient sent back through micro-batches of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aapo_desk.algorithms import Advantages, Algorithm, Batch
from aapo_desk.config import OptimizerConfig
from aapo_desk.models.logprobs import Pack, pack_logps
from aapo_desk.models.policy import Policy
from aapo_desk.training.packing import Cost, PackRows, micro_batches
from aapo_desk.training.scaling import LossScale

Micro = Sequence[PackRows]
"""A micro-batch: packs of rows of the step."""

LogProbs = Callable[[Micro], Tensor]
"""A micro-batch -> its rows' tokens' log-probs [rows, T] in the packs' order, with a graph."""


@dataclass(frozen=True)
class Rollout:
    """The policy's completions of a step, as the update sees them: token ids by row."""

    prompts: list[list[int]]
    completions: list[list[int]]
    temperature: float
    group_size: int
    logps: Tensor | None = None
    """[B, T], as they were when the tokens were sampled; only to see whether the update agrees"""

    @property
    def width(self) -> int:
        return max(map(len, self.completions))

    def mask(self) -> Tensor:
        """[B, T] float64, 1 at the completions' tokens."""
        lengths = torch.tensor([len(completion) for completion in self.completions])
        return (torch.arange(self.width) < lengths[:, None]).double()

    def cut(self, rows: Sequence[int], budget: int, cost: Cost | None) -> list[list[PackRows]]:
        """Micro-batches of these rows."""
        prompts, completions = [len(prompt) for prompt in self.prompts], [len(done) for done in self.completions]
        return micro_batches(prompts, completions, rows, self.group_size, budget, cost)

    def packs(self, batch: Micro) -> list[Pack]:
        """A micro-batch's tokens."""
        return [Pack(self.prompts[rows[0]], [self.completions[row] for row in rows]) for rows in batch]


@dataclass(frozen=True)
class Update:
    """What an update did, or what the updates of one rollout did together.

    Norms are of the whole adapter; ``applied`` is False where a number was not finite. Of several updates, ``loss`` and
    ``grad_norm`` are means, ``update_norm`` is the sum of their ways, all else is the first's.
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


def backpropagate(
    logps: LogProbs,
    gradient: Tensor,
    batches: Sequence[Micro],
    progress: Callable[[float], None] = lambda _: None,
) -> Tensor:
    """Send the gradient [B, T] of a loss with respect to the log-probs back through ``logps``, batch by batch.

    The parameters' gradients add up to those of the whole step, whatever the batches. Gives the log-probs seen, [B, T].
    """
    seen = torch.zeros_like(gradient)
    for number, batch in enumerate(batches):
        rows = flat(batch)
        part = logps(batch)
        torch.autograd.backward(part, gradient[rows].to(part))
        seen[rows] = part.detach().to(seen)
        progress((number + 1) / len(batches))
    return seen


def flat(batch: Micro) -> list[int]:
    """The rows of a micro-batch in the order of its log-probs."""
    return [row for pack in batch for row in pack]


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
) -> Update:
    """``updates`` steps of the optimiser on one rollout. ``rewards`` [P, G], NaN where unscorable.

    ``cost`` lets completions share their prompt where that is cheaper; None computes every row alone. ``scale`` is used
    and adapted; None: the gradient goes back as it is. Before each of several updates the log-probs are computed anew,
    without a gradient; those before the first are the old ones.
    """
    mask = rollout.mask()

    def logps(batch: Micro) -> Tensor:
        return pack_logps(policy, rollout.packs(batch), rollout.width, rollout.temperature)

    batch = Batch(rewards, mask, reference_rewards)
    counting = [int(row) for row in batch.scorable.reshape(-1).nonzero()]
    before = rollout.cut(counting, token_budget, cost)
    if algorithm.needs_reference_logps:
        with torch.no_grad(), policy.as_reference():
            batch = replace(batch, reference_logps=_collect(logps, before, mask))
    done: list[Update] = []
    for number in range(updates):
        current = None
        if updates > 1 or algorithm.gradient_needs_logps:
            with torch.no_grad():
                current = _collect(logps, before, mask)
            if number == 0 and algorithm.needs_old_logps:
                batch = replace(batch, old_logps=current)
        objective = algorithm.objective(batch, torch.zeros_like(mask) if current is None else current)

        # A row whose gradient is exactly 0 adds nothing; its tokens are in the denominator already.
        teaching = [int(row) for row in objective.gradient.any(1).nonzero()]
        optimizer.zero_grad(set_to_none=False)
        with policy.training():
            gradient = objective.gradient * scale.factor if scale else objective.gradient
            seen = backpropagate(
                logps,
                gradient,
                rollout.cut(teaching, token_budget, cost),
                lambda share, number=number: progress((number + share) / updates),  # type: ignore[misc]
            )
        loss = objective.loss if current is not None else algorithm.loss(seen, batch, objective.advantages)
        one = _apply(policy, optimizer, objective.advantages, float(loss), rate, max_grad_norm, scale)
        if scale:
            scale.adapt(one.grad_norm)
        taught = objective.gradient.any(1).reshape(rewards.shape)
        done.append(replace(one, logp_gap=_gap(rollout, seen, mask, teaching), taught=taught))
    return _together(done)


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
    )


def _gap(rollout: Rollout, seen: Tensor, mask: Tensor, rows: list[int]) -> float:
    if rollout.logps is None or not rows:
        return math.nan
    apart = (seen[rows] - rollout.logps[rows, : rollout.width]).abs() * mask[rows]
    return float(apart.sum() / mask[rows].sum())


def _collect(logps: LogProbs, batches: Sequence[Micro], mask: Tensor) -> Tensor:
    values = torch.zeros_like(mask)
    for batch in batches:
        values[flat(batch)] = logps(batch).to(values)
    return values


def _apply(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    advantages: Advantages,
    loss: float,
    rate: float,
    max_grad_norm: float,
    scale: LossScale | None,
) -> Update:
    norm, moved = take_step(policy, optimizer, loss, rate, max_grad_norm, scale)
    return Update(advantages, loss, norm, moved or 0.0, applied=moved is not None)


def take_step(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    loss: float,
    rate: float,
    max_grad_norm: float,
    scale: LossScale | None,
) -> tuple[float, float | None]:
    """One step of the optimiser along the parameters' gradients: their norm, and how far the adapter has moved.

    None where the loss or the gradient is not finite: nothing has changed then.
    """
    parameters = list(policy.adapter_parameters().values())
    for parameter in parameters:
        # An optimiser that sees no gradient would skip its moments; a step without signal must not differ by path.
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if scale:
            parameter.grad.div_(scale.factor)
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm))
    if not math.isfinite(norm) or not math.isfinite(loss):
        optimizer.zero_grad(set_to_none=False)
        return norm, None
    before = [parameter.detach().clone() for parameter in parameters]
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    moved = torch.stack([(new.detach() - old).norm() for new, old in zip(parameters, before, strict=True)]).norm()
    return norm, float(moved)
