"""Score completions, and hold a step's completions and rewards of policy and reference.

Shapes: P prompts, G completions per prompt, rows p·G + g.
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
    """Decoded completions that are not scored yet, G for each of ``problems``."""

    completions: Completions
    problems: Sequence[Problem]


@dataclass(frozen=True)
class Scored:
    """A scored completion: its text, its length in tokens, whether it was truncated, and its score."""

    text: str
    tokens: int
    truncated: bool
    score: Score


@dataclass(frozen=True)
class Side:
    """The scored completions of a step of one side, policy or reference."""

    scored: Sequence[Scored]
    group_size: int

    @property
    def rewards(self) -> Tensor:
        """Return the total rewards, [P, G] float64, NaN for unscorable completions."""
        totals = [math.nan if one.score.total is None else one.score.total for one in self.scored]
        return torch.tensor(totals, dtype=torch.float64).reshape(-1, self.group_size)


@dataclass(frozen=True)
class Sides:
    """A step's rollout.

    ``completions`` are the policy's; ``new`` are the completions of both sides that were sampled in this step.
    ``broken`` says which log-probs were non-finite, so that the completions are meaningless; None if all were finite.
    """

    completions: Completions
    policy: Side
    reference: Side | None
    new: Sequence[Scored]
    broken: str | None = None

    @property
    def reference_rewards(self) -> Tensor | None:
        """Return the reference's rewards, [P, G]; None without a reference."""
        return self.reference.rewards if self.reference else None


def score(pool: RewardPool, tokenizer: Any, drawn: Sequence[Drawn], max_tokens: int) -> list[list[Scored]]:
    """Score each of ``drawn``. All completions are submitted together, so that all workers are kept busy."""
    asked = [_completions(tokenizer, one, max_tokens) for one in drawn]
    scores = iter(pool.score([completion for each in asked for completion in each]))
    return [[Scored(one.text, one.tokens, one.truncated, next(scores)) for one in each] for each in asked]


def _completions(tokenizer: Any, drawn: Drawn, max_tokens: int) -> list[Completion]:
    """Return the completions as the rewards see them: texts without the tokens that end them."""
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
