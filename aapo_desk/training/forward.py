"""Forward and backward passes over a rollout's rows, in micro-batches; each process of a run computes its share."""

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
"""A micro-batch: packs of the step's rows."""

LogProbs = Callable[[Micro], Tensor]
"""Maps a micro-batch to the log-probabilities of its rows' tokens, [rows, T] in the packs' order, with a graph."""


@dataclass(frozen=True)
class Rollout:
    """The policy's completions in a step, as the update needs them: token ids by row."""

    prompts: list[list[int]]
    completions: list[list[int]]
    temperature: float
    group_size: int
    logps: Tensor | None = None
    """Log-probabilities [B, T] at sampling time; used only to check how far the update's differ."""

    @property
    def width(self) -> int:
        """T, the number of tokens in the longest completion."""
        return max(map(len, self.completions))

    def mask(self) -> Tensor:
        """Return the mask of the completions' tokens, [B, T] float64: 1 at a token, 0 at padding."""
        lengths = torch.tensor([len(completion) for completion in self.completions])
        return (torch.arange(self.width) < lengths[:, None]).double()

    def cut(self, rows: Sequence[int], budget: int, cost: Cost | None) -> list[list[PackRows]]:
        """Divide these rows into micro-batches of at most ``budget`` tokens, as ``micro_batches`` does."""
        prompts, completions = [len(prompt) for prompt in self.prompts], [len(done) for done in self.completions]
        return micro_batches(prompts, completions, rows, self.group_size, budget, cost)

    def packs(self, batch: Micro) -> list[Pack]:
        """Return a micro-batch's tokens as packs."""
        return [Pack(self.prompts[rows[0]], [self.completions[row] for row in rows]) for rows in batch]


def backpropagate(
    logps: LogProbs,
    gradient: Tensor,
    batches: Sequence[Micro],
    progress: Callable[[float], None] = lambda _: None,
) -> Tensor:
    """Backpropagate the gradient [B, T] of a loss with respect to the log-probabilities, micro-batch by micro-batch.

    The parameters' gradients add up to those of the whole step, whatever the batches. Returns the log-probabilities
    that ``logps`` computed, [B, T].
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
    """Return the rows of a micro-batch in the order of its log-probabilities."""
    return [row for pack in batch for row in pack]


@dataclass(frozen=True)
class Passes:
    """Passes of the model over a rollout's rows, with each process of the run computing its share of the groups."""

    policy: Policy
    rollout: Rollout
    token_budget: int
    cost: Cost | None
    ranks: Ranks = ALONE

    def logps(self, rows: Sequence[int], reference: bool = False) -> Tensor:
        """Return the log-probabilities of these rows, [B, T] without a graph and 0 elsewhere.

        They are the policy's, or with ``reference=True`` the reference's.
        """
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
        """Backpropagate the gradient [B, T] through these rows, on all processes, and add it to the adapter's here.

        Returns the log-probabilities computed on the way, [B, T].
        """
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
        """Compute this process's share: the log-probabilities of its rows, [rows, T]."""
        values = torch.zeros(len(self.rollout.completions), self.rollout.width, dtype=torch.float64)
        with torch.no_grad(), self.policy.as_reference() if reference else nullcontext():
            for batch in self._cut(rows):
                values[flat(batch)] = self._pass(batch).to(values)
        return values[list(rows)]

    def own_backpropagate(
        self, gradient: Tensor, rows: Sequence[int], progress: Callable[[float], None] = lambda _: None
    ) -> Tensor:
        """Backpropagate this process's share. Returns the log-probabilities of its rows, [rows, T]."""
        with self.policy.training():
            return backpropagate(self._pass, gradient, self._cut(rows), progress)[list(rows)]

    @classmethod
    def read(cls, policy: Policy, letter: Message, cost: Cost) -> Passes:
        """Build the passes from rank 0's message. ``cost`` is used only if the message says that prompts are shared."""
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
    """Draw a seed for another process's random numbers (dropout) from the step's generator."""
    return int(torch.randint(1 << 62, ()))
