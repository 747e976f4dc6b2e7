"""One update of the adapter: the algorithm's gradient sent back through micro-batches of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from aapo_desk.algorithms import Advantages, Algorithm, Batch
from aapo_desk.config import OptimizerConfig
from aapo_desk.models.logprobs import Pack, pack_logps
from aapo_desk.models.policy import Policy
from aapo_desk.training.finiteness import Broken, broken_gradient, broken_logps, broken_state
from aapo_desk.training.packing import Cost, PackRows, deal, micro_batches
from aapo_desk.training.ranks import ALONE, Letter, Ranks
from aapo_desk.training.scaling import LEAST, LossScale

Micro = Sequence[PackRows]
"""A micro-batch: packs of rows of the step."""

LogProbs = Callable[[Micro], Tensor]
"""A micro-batch -> its rows' tokens' log-probs [rows, T] in the packs' order, with a graph."""

Within = Callable[[Callable[[int], Tensor]], Tensor]
"""Runs a computation with a token budget; where memory runs out, it may run it again with a smaller one."""


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
    broken: Broken | None = None
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


@dataclass(frozen=True)
class Passes:
    """The model over the rows of a rollout, each process of the run over its share of the groups."""

    policy: Policy
    rollout: Rollout
    token_budget: int
    cost: Cost | None
    ranks: Ranks = ALONE

    def logps(self, rows: Sequence[int], reference: bool = False) -> Tensor:
        """The rows' log-probs, [B, T] without a graph, 0 elsewhere; of the policy or of the reference."""
        dealt = self._deal(rows)
        return self._whole(
            dealt,
            self.ranks.together(
                "logps",
                [self._letter(share, reference=reference) for share in dealt[1:]],
                lambda: self.own_logps(dealt[0], reference),
                lambda letter: letter.tensors["logps"],
            ),
        )

    def backpropagate(self, gradient: Tensor, rows: Sequence[int], progress: Callable[[float], None]) -> Tensor:
        """Send the gradient [B, T] back through these rows and add to the adapter's here. Gives the log-probs seen."""
        dealt = self._deal(rows)
        parts = self.ranks.together(
            "backpropagate",
            [self._letter(share, gradient, seed=_draw_seed()) for share in dealt[1:]],
            lambda: self.own_backpropagate(gradient, dealt[0], progress),
            lambda letter: letter.tensors["logps"],
        )
        self.ranks.sum_gradients()
        return self._whole(dealt, parts)

    def own_logps(self, rows: Sequence[int], reference: bool) -> Tensor:
        """This process's share: the log-probs of its rows, [rows, T]."""
        values = torch.zeros(len(self.rollout.completions), self.rollout.width, dtype=torch.float64)
        with torch.no_grad(), self.policy.as_reference() if reference else nullcontext():
            for batch in self._cut(rows):
                values[flat(batch)] = self._pass(batch).to(values)
        return values[list(rows)]

    def own_backpropagate(
        self, gradient: Tensor, rows: Sequence[int], progress: Callable[[float], None] = lambda _: None
    ) -> Tensor:
        """This process's share: the log-probs of its rows as they were seen, [rows, T]."""
        with self.policy.training():
            return backpropagate(self._pass, gradient, self._cut(rows), progress)[list(rows)]

    @classmethod
    def read(cls, policy: Policy, letter: Letter, cost: Cost) -> Passes:
        """What another process was told to compute with. ``cost`` is where prompts are shared at all."""
        said = letter.data
        prompts = [prompt for prompt in said["prompts"] for _ in range(said["group_size"])]
        rollout = Rollout(prompts, said["completions"], said["temperature"], said["group_size"])
        return cls(policy, rollout, said["token_budget"], cost if said["shared"] else None)

    def _letter(self, rows: Sequence[int], gradient: Tensor | None = None, **more: Any) -> Letter:
        rollout = self.rollout
        data = {
            "rows": list(rows),
            "prompts": rollout.prompts[:: rollout.group_size],
            "completions": rollout.completions,
            "temperature": rollout.temperature,
            "group_size": rollout.group_size,
            "token_budget": self.token_budget,
            "shared": self.cost is not None,
        }
        return Letter(data | more, {} if gradient is None else {"gradient": gradient.double()})

    def _pass(self, batch: Micro) -> Tensor:
        return pack_logps(self.policy, self.rollout.packs(batch), self.rollout.width, self.rollout.temperature)

    def _cut(self, rows: Sequence[int]) -> list[list[PackRows]]:
        return self.rollout.cut(rows, self.token_budget, self.cost)

    def _deal(self, rows: Sequence[int]) -> list[list[int]]:
        lengths = [len(prompt) for prompt in self.rollout.prompts], [len(done) for done in self.rollout.completions]
        return deal(*lengths, rows, self.rollout.group_size, self.ranks.size)

    def _whole(self, dealt: Sequence[Sequence[int]], parts: Sequence[Tensor]) -> Tensor:
        whole = torch.zeros(len(self.rollout.completions), self.rollout.width, dtype=torch.float64)
        for rows, part in zip(dealt, parts, strict=True):
            whole[list(rows)] = part
        return whole


def _draw_seed() -> int:
    """For what another process draws (dropout): of the step's own numbers."""
    return int(torch.randint(1 << 62, ()))


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
    broken: Broken | None = None,
) -> Update:
    """``updates`` steps of the optimiser on one rollout. ``rewards`` [P, G], NaN where unscorable.

    ``cost`` lets completions share their prompt where that is cheaper; None computes every row alone. ``scale`` is used
    and adapted; None: the gradient goes back as it is. Before each of several updates the log-probs are computed anew,
    without a gradient; those before the first are the old ones.

    ``within`` runs each pass through the model, by default once and with ``token_budget``. ``broken``: what of the
    rollout was not finite. With that, or where a number of its own is not, nothing is applied.
    """
    within = within or (lambda compute: compute(token_budget))
    mask = rollout.mask()
    passes = Passes(policy, rollout, token_budget, cost, ranks)
    batch = Batch(rewards, mask, reference_rewards)
    counting = [int(row) for row in batch.scorable.reshape(-1).nonzero()]

    def logps(reference: bool = False) -> Tensor:
        return within(lambda budget: replace(passes, token_budget=budget).logps(counting, reference))

    if algorithm.needs_reference_logps:
        batch = replace(batch, reference_logps=logps(reference=True))
    done: list[Update] = []
    for number in range(updates):
        current = None
        if updates > 1 or algorithm.gradient_needs_logps:
            current = logps()
            if number == 0 and algorithm.needs_old_logps:
                batch = replace(batch, old_logps=current)
        objective = algorithm.objective(batch, torch.zeros_like(mask) if current is None else current)

        # A row whose gradient is exactly 0 adds nothing; its tokens are in the denominator already.
        teaching = [int(row) for row in objective.gradient.any(1).nonzero()]
        gradient = objective.gradient * scale.factor if scale else objective.gradient

        def back(budget: int, gradient: Tensor = gradient, rows: list[int] = teaching, number: int = number) -> Tensor:
            optimizer.zero_grad(set_to_none=False)
            part = replace(passes, token_budget=budget)
            return part.backpropagate(gradient, rows, lambda share: progress((number + share) / updates))

        seen = within(back)
        loss = objective.loss if current is not None else algorithm.loss(seen, batch, objective.advantages)
        names = {"the reference": batch.reference_logps, "before the update": current, "the update": seen}
        found = broken or broken_logps(names)
        step = take_step(policy, optimizer, float(loss), rate, max_grad_norm, scale, found)
        if scale:
            scale.adapt(step.norm)
        one = Update(objective.advantages, float(loss), step.norm, step.moved, step.applied, broken=step.broken)
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
        broken=min((one.broken for one in done if one.broken), key=lambda broken: not broken.is_kept, default=None),
    )


def _gap(rollout: Rollout, seen: Tensor, mask: Tensor, rows: list[int]) -> float:
    if rollout.logps is None or not rows:
        return math.nan
    apart = (seen[rows] - rollout.logps[rows, : rollout.width]).abs() * mask[rows]
    return float(apart.sum() / mask[rows].sum())


@dataclass(frozen=True)
class Taken:
    """A step of the optimiser: the gradient's norm, how far the adapter moved, and what was not finite.

    ``broken`` is None too where a gradient only was too large for float16's loss scale.
    """

    norm: float
    moved: float
    applied: bool
    broken: Broken | None


def take_step(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    loss: float,
    rate: float,
    max_grad_norm: float,
    scale: LossScale | None,
    broken: Broken | None = None,
) -> Taken:
    """A step of the optimiser along the parameters' gradients; none where a number is not finite, as is ``broken``."""
    parameters = list(policy.adapter_parameters().values())
    for parameter in parameters:
        # An optimiser that sees no gradient would skip its moments; a step without signal must not differ by path.
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if scale:
            parameter.grad.div_(scale.factor)
    # Not clip_grad_norm_, which does these two: one bad number would leave no other to be told from.
    norm_tensor = torch.nn.utils.get_total_norm([value.grad for value in parameters if value.grad is not None])
    norm = float(norm_tensor)
    broken = broken or broken_gradient(loss, norm, policy)
    if broken:
        optimizer.zero_grad(set_to_none=False)
        kept = None if scale and scale.factor > LEAST and broken.what == "gradient" else broken
        return Taken(norm, 0.0, applied=False, broken=kept and (broken_state(policy, optimizer) or kept))
    torch.nn.utils.clip_grads_with_norm_(parameters, max_grad_norm, norm_tensor)
    before = [parameter.detach().clone() for parameter in parameters]
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    moved = torch.stack([(new.detach() - old).norm() for new, old in zip(parameters, before, strict=True)]).norm()
    broken = broken_state(policy, optimizer)
    return Taken(norm, float(moved), applied=broken is None, broken=broken)
