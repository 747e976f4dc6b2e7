"""A rollout's rows through the model and back, in micro-batches, each process of a run over its share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aapo_desk.models.logprobs import Pack, pack_logps
from aapo_desk.models.policy import Policy
from aapo_desk.training.distributed.group import ALONE, Message, Ranks
from aapo_desk.training.micro_batches import Cost, PackRows, micro_batches, shard

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
            self.ranks.run_on_all_ranks(
                "logps",
                [self._letter(share, reference=reference) for share in dealt[1:]],
                lambda: self.own_logps(dealt[0], reference),
                lambda letter: letter.tensors["logps"],
            ),
        )

    def backpropagate(self, gradient: Tensor, rows: Sequence[int], progress: Callable[[float], None]) -> Tensor:
        """Send the gradient [B, T] back through these rows and add to the adapter's here. Gives the log-probs seen."""
        dealt = self._deal(rows)
        parts = self.ranks.run_on_all_ranks(
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
    def read(cls, policy: Policy, letter: Message, cost: Cost) -> Passes:
        """What another process was told to compute with. ``cost`` is where prompts are shared at all."""
        said = letter.data
        prompts = [prompt for prompt in said["prompts"] for _ in range(said["group_size"])]
        rollout = Rollout(prompts, said["completions"], said["temperature"], said["group_size"])
        return cls(policy, rollout, said["token_budget"], cost if said["shared"] else None)

    def _letter(self, rows: Sequence[int], gradient: Tensor | None = None, **more: Any) -> Message:
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
        return Message(data | more, {} if gradient is None else {"gradient": gradient.double()})

    def _pass(self, batch: Micro) -> Tensor:
        return pack_logps(self.policy, self.rollout.packs(batch), self.rollout.width, self.rollout.temperature)

    def _cut(self, rows: Sequence[int]) -> list[list[PackRows]]:
        return self.rollout.cut(rows, self.token_budget, self.cost)

    def _deal(self, rows: Sequence[int]) -> list[list[int]]:
        lengths = [len(prompt) for prompt in self.rollout.prompts], [len(done) for done in self.rollout.completions]
        return shard(*lengths, rows, self.rollout.group_size, self.ranks.size)

    def _whole(self, dealt: Sequence[Sequence[int]], parts: Sequence[Tensor]) -> Tensor:
        whole = torch.zeros(len(self.rollout.completions), self.rollout.width, dtype=torch.float64)
        for rows, part in zip(dealt, parts, strict=True):
            whole[list(rows)] = part
        return whole


def _draw_seed() -> int:
    """For what another process draws (dropout): of the step's own numbers."""
    return int(torch.randint(1 << 62, ()))
