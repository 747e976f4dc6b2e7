"""A model answers problems, and its answers are scored as in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from aapo_desk.models.policy import Policy
from aapo_desk.rewards import Completion, RewardPool
from aapo_desk.rollout import Row, Sampling, decode
from aapo_desk.tasks import Problem

READABLE = "readable"
"""The reward that tells whether there is an answer at all."""


@dataclass(frozen=True)
class Answer:
    """One completion and what the judge made of it."""

    text: str
    read: str | None
    """The answer that the judge found in the text, where it tells."""
    score: float | None
    """None: it could not be scored, and ``error`` says why."""
    readable: float
    """1 where an answer could be read at all."""
    tokens: int
    truncated: bool
    error: str | None


def ask(
    policy: Policy,
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Row],
    max_new_tokens: int,
    sampling: Sampling,
    uniforms: Tensor,
    pool: RewardPool,
    batch_rows: int,
    progress: Callable[[float], None] = lambda _: None,
    fixed: bool = False,
) -> list[Answer]:
    """The answer of each of ``rows``, which name places in ``problems`` and ``prompts``; scored by a pool of
    ``judged_by``'s rewards.

    ``uniforms`` [R, T], ``batch_rows``, ``progress`` and ``fixed`` are as in ``decode``. Raises RewardError.
    """
    done = decode(policy, prompts, rows, max_new_tokens, sampling, uniforms, batch_rows, progress, fixed)
    texts = policy.tokenizer.batch_decode([done.content(row) for row in range(len(rows))], skip_special_tokens=True)
    completions = [
        Completion(
            text=text,
            problem=problems[row.prompt].problem,
            answer=problems[row.prompt].answer,
            tokens=int(done.lengths[number]),
            max_tokens=max_new_tokens,
            truncated=not bool(done.ended[number]),
            recipe=problems[row.prompt].recipe,
        )
        for number, (row, text) in enumerate(zip(rows, texts, strict=True))
    ]
    return [
        Answer(
            text=completion.text,
            read=score.read,
            score=next(value for name, value in score.parts.items() if name != READABLE),
            readable=score.parts[READABLE] or 0.0,
            tokens=completion.tokens,
            truncated=completion.truncated,
            error=score.error,
        )
        for completion, score in zip(completions, pool.score(completions), strict=True)
    ]
