"""Let a model answer problems, and score the answers as in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from aapo_desk.models.policy import Policy
from aapo_desk.rewards import Completion, RewardPool
from aapo_desk.rollout import Row, Sampling, decode
from aapo_desk.tasks import Problem

READABLE = "readable"
"""The reward that measures whether the completion contains an answer at all."""


@dataclass(frozen=True)
class Answer:
    """One completion with its score."""

    text: str
    read: str | None
    """The answer that the judge extracted from the text; None if it does not report one."""
    score: float | None
    """None if the completion could not be scored; ``error`` then gives the reason."""
    readable: float
    """1 if an answer could be extracted at all, else 0."""
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
    """Return one scored answer for each of ``rows``, whose ``prompt`` is an index into ``problems`` and ``prompts``.

    ``pool`` runs the rewards that ``judged_by`` returns. ``uniforms`` [R, T], ``batch_rows``, ``progress`` and
    ``fixed`` are as in ``decode``. Raises RewardError.
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
