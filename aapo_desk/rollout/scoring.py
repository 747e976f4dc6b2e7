"""Completions and what they got: a step's policy side and reference side.

Shapes: P prompts, G completions a prompt, rows p·G + g.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aapo_desk.rewards import Completion, RewardPool, Score
from aapo_desk.rollout.decoding import Completions
from aapo_desk.tasks import Problem


@dataclass(frozen=True)
class Drawn:
    """Completions as decoded, G for each of ``problems``."""

    completions: Completions
    problems: Sequence[Problem]


@dataclass(frozen=True)
class Scored:
    """A completion as rewards and people see it: its text, its length in tokens, and what it got."""

    text: str
    tokens: int
    truncated: bool
    score: Score


@dataclass(frozen=True)
class Side:
    """One side's completions of a step with their scores."""

    scored: Sequence[Scored]
    group_size: int

    @property
    def rewards(self) -> Tensor:
        """[P, G] float64, NaN where unscorable."""
        totals = [math.nan if one.score.total is None else one.score.total for one in self.scored]
        return torch.tensor(totals, dtype=torch.float64).reshape(-1, self.group_size)


@dataclass(frozen=True)
class Sides:
    """A step's rollout. ``completions`` are the policy's; ``new`` is what was sampled in this step, of both sides.

    ``broken``: where a log-prob of what was sampled was not finite, so that the completions mean nothing.
    """

    completions: Completions
    policy: Side
    reference: Side | None
    new: Sequence[Scored]
    broken: str | None = None

    @property
    def reference_rewards(self) -> Tensor | None:
        """[P, G]"""
        return self.reference.rewards if self.reference else None


def score(pool: RewardPool, tokenizer: Any, drawn: Sequence[Drawn], max_tokens: int) -> list[list[Scored]]:
    """The scores of each of ``drawn``, all asked for in one go, so that all workers are kept busy."""
    asked = [_completions(tokenizer, one, max_tokens) for one in drawn]
    scores = iter(pool.score([completion for each in asked for completion in each]))
    return [[Scored(one.text, one.tokens, one.truncated, next(scores)) for one in each] for each in asked]


def _completions(tokenizer: Any, drawn: Drawn, max_tokens: int) -> list[Completion]:
    """As the rewards see them: texts without the tokens that end them."""
    done = drawn.completions
    rows = [done.content(row) for row in range(len(done.lengths))]
    texts: list[str] = tokenizer.batch_decode(rows, skip_special_tokens=True)
    group_size = len(rows) // len(drawn.problems)
    return [
        Completion(
            text=text,
            problem=drawn.problems[row // group_size].problem,
            answer=drawn.problems[row // group_size].answer,
            tokens=int(done.lengths[row]),
            max_tokens=max_tokens,
            truncated=not bool(done.ended[row]),
            recipe=drawn.problems[row // group_size].recipe,
        )
        for row, text in enumerate(texts)
    ]
