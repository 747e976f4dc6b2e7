"""Divide a step's rows into micro-batches: which completions share a prompt, and which are computed at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

PackRows = list[int]
"""A pack: rows of the step that share one copy of their prompt. A pack of one row takes the dense path."""


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one layer: per token in its linear parts, and per pair of tokens in attention."""

    token: float
    pair: float

    @classmethod
    def of(cls, shape: Any) -> Cost:
        """Compute the costs from a transformers text config."""
        heads = shape.num_attention_heads
        head_size = getattr(shape, "head_dim", None) or shape.hidden_size // heads
        kv_heads = getattr(shape, "num_key_value_heads", None) or heads
        attention = shape.hidden_size * head_size * (2 * heads + 2 * kv_heads)
        return cls(attention + 3 * shape.hidden_size * shape.intermediate_size, 2 * heads * head_size)

    def completions_a_pack(self, prompt: int, completion: float, most: int) -> int:
        """Return how many completions of this mean length to put after one prompt so that each costs the least.

        A longer pack saves prompt tokens but costs more attention, which is computed over all pairs, masked or not.
        """

        def each(count: int) -> float:
            tokens = prompt + count * completion
            return (tokens * self.token + tokens**2 * self.pair) / count

        return min(range(1, max(1, most) + 1), key=each)


def micro_batches(
    prompts: Sequence[int],
    completions: Sequence[int],
    rows: Sequence[int],
    group_size: int,
    budget: int,
    cost: Cost | None,
) -> list[list[PackRows]]:
    """Return batches of packs, each with packs x longest pack <= ``budget`` tokens, but at least one completion.

    ``prompts`` and ``completions`` are token counts by row; rows of one prompt are adjacent, ``group_size`` per prompt.
    With ``cost`` None every row is computed alone. The result depends on lengths only, so a resumed run gets the same
    batches.
    """
    packs: list[PackRows] = []
    for _, group in groupby(sorted(rows), key=lambda row: row // group_size):
        packs += _cut(list(group), prompts, completions, budget, cost)

    def tokens(pack: PackRows) -> int:
        return prompts[pack[0]] + sum(completions[row] for row in pack)

    batches: list[list[PackRows]] = []
    for pack in sorted(packs, key=lambda pack: (tokens(pack), pack)):
        if batches and (len(batches[-1]) + 1) * tokens(pack) <= budget:
            batches[-1].append(pack)
        else:
            batches.append([pack])
    return batches


def shard(
    prompts: Sequence[int], completions: Sequence[int], rows: Sequence[int], group_size: int, processes: int
) -> list[list[int]]:
    """Distribute ``rows`` over the processes and return each one's rows in order.

    Groups stay whole, and the longest remaining group goes to the process with the fewest tokens. ``prompts`` and
    ``completions`` are token counts by row. The result depends on lengths only.
    """
    groups = [list(group) for _, group in groupby(sorted(rows), key=lambda row: row // group_size)]
    dealt: list[list[int]] = [[] for _ in range(processes)]
    tokens = [0] * processes

    def size(group: list[int]) -> int:
        return prompts[group[0]] + sum(completions[row] for row in group)

    for group in sorted(groups, key=size, reverse=True):
        least = tokens.index(min(tokens))
        dealt[least] += group
        tokens[least] += size(group)
    return [sorted(share) for share in dealt]


def _cut(
    group: list[int], prompts: Sequence[int], completions: Sequence[int], budget: int, cost: Cost | None
) -> list[PackRows]:
    """Divide one prompt's rows into packs within the budget."""
    if cost is None:
        return [[row] for row in group]
    prompt = prompts[group[0]]
    mean = sum(completions[row] for row in group) / len(group)
    most = cost.completions_a_pack(prompt, mean, len(group))
    packs: list[PackRows] = []
    room = 0
    for row in group:
        if packs and len(packs[-1]) < most and completions[row] <= room:
            packs[-1].append(row)
        else:
            packs.append([row])
            room = budget - prompt
        room -= completions[row]
    return packs
