"""Accuracy on held-out problems: greedy, and sampled at the rollout's temperature."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aapo_desk.config import RewardConfig, RunConfig
from aapo_desk.evaluation.intervals import paired_difference, proportion
from aapo_desk.models.policy import Policy
from aapo_desk.rewards import Completion, RewardPool
from aapo_desk.rollout import Row, Sampling, decode, derive_seed, uniforms
from aapo_desk.tasks import Problem

NAME = "held_out"
ROWS_AT_ONCE = 64
READABLE = "readable"


@dataclass(frozen=True)
class HeldOut:
    """What is asked: problems with their prompts' token ids, and how answers are scored."""

    problems: Sequence[Problem]
    prompts: Sequence[list[int]]
    pool: RewardPool
    """Of the rewards that ``judged_by`` names."""


def judged_by(rewards: Sequence[RewardConfig]) -> list[RewardConfig]:
    """The rewards that an evaluation runs: the right answer (``math``, else the first one configured), unweighted,
    and whether an answer could be read at all."""
    judge = next((reward for reward in rewards if reward.name == "math"), rewards[0])
    return [judge.model_copy(update={"weight": 1.0}), RewardConfig(name=READABLE, weight=0.0)]


def evaluate(
    policy: Policy,
    asked: HeldOut,
    config: RunConfig,
    base: dict[str, Any] | None,
    batch_rows: int = ROWS_AT_ONCE,
    progress: Callable[[float], None] = lambda _: None,
    fixed: bool = False,
) -> dict[str, Any]:
    """Ask every held-out problem twice, greedily and sampled, in one batch; each prompt is read once.

    Gives the ``evaluations`` row's data. ``base`` is the base model's, for the paired differences; ``fixed`` is as in
    ``decode``. The same uniforms serve every evaluation of a run, so that two of them differ by the adapter alone.
    """
    started = time.perf_counter()
    rows = [Row(number, True, greedy) for number in range(len(asked.problems)) for greedy in (True, False)]
    numbers = uniforms(len(rows), config.evaluation_tokens, derive_seed(config.run.seed, "evaluation"))
    sampling = Sampling.of(config.rollout)
    done = decode(policy, asked.prompts, rows, config.evaluation_tokens, sampling, numbers, batch_rows, progress, fixed)
    texts = policy.tokenizer.batch_decode([done.row(row) for row in range(len(rows))], skip_special_tokens=True)
    completions = [
        Completion(
            text=text,
            problem=asked.problems[row.prompt].problem,
            answer=asked.problems[row.prompt].answer,
            tokens=int(done.lengths[number]),
            max_tokens=config.evaluation_tokens,
            truncated=not bool(done.ended[number]),
            recipe=asked.problems[row.prompt].recipe,
        )
        for number, (row, text) in enumerate(zip(rows, texts, strict=True))
    ]
    parts = [score.parts for score in asked.pool.score(completions)]
    greedy, sampled = (_summary(parts[side::2], texts[side::2]) for side in (0, 1))
    return {
        "problems": len(asked.problems),
        "ids": [problem.id for problem in asked.problems],
        "greedy": greedy,
        "sampled": sampled,
        "difference": _difference(base, "greedy", greedy),
        "difference_sampled": _difference(base, "sampled", sampled),
        "seconds": time.perf_counter() - started,
    }


def _summary(parts: Sequence[dict[str, float | None]], texts: Sequence[str]) -> dict[str, Any]:
    """Accuracy over the answers that could be scored; the others are counted beside it."""
    scores = [next(score for name, score in part.items() if name != READABLE) for part in parts]
    scorable = [score for score in scores if score is not None]
    readable = [part[READABLE] or 0.0 for part in parts]
    accuracy = proportion(scorable) if scorable else None
    return {
        "accuracy": accuracy.mean if accuracy else None,
        "low": accuracy.low if accuracy else None,
        "high": accuracy.high if accuracy else None,
        "readable": sum(readable) / len(readable),
        "unscorable": len(scores) - len(scorable),
        "scores": scores,
        "answers": list(texts),
    }


def _difference(base: dict[str, Any] | None, side: str, after: dict[str, Any]) -> dict[str, float] | None:
    """Paired by problem, over those that both could be scored on."""
    if base is None:
        return None
    pairs = [
        (old, new)
        for old, new in zip(base[side]["scores"], after["scores"], strict=True)
        if old is not None and new is not None
    ]
    if not pairs:
        return None
    return paired_difference([old for old, _ in pairs], [new for _, new in pairs]).as_json()
