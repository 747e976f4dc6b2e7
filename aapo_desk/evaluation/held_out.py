"""Accuracy on a run's held-out problems during training: greedy, and sampled at the rollout's temperature."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aapo_desk.config import RewardConfig, RunConfig
from aapo_desk.evaluation.accuracy import difference, measure
from aapo_desk.evaluation.asking import READABLE, Answer, ask
from aapo_desk.memory import EVALUATED_AT_ONCE
from aapo_desk.models.policy import Policy
from aapo_desk.rewards import RewardPool
from aapo_desk.rewards.builtin import VERIFIERS
from aapo_desk.rollout import Row, Sampling, derive_seed, uniforms
from aapo_desk.tasks import Problem

NAME = "held_out"
FOR_THE_FORM = ("countdown", "well_formed")
"""The reward and its option that gives points for a well-formed answer that is not right."""


@dataclass(frozen=True)
class HeldOut:
    """The held-out problems with their prompts' token ids, and the pool that scores the answers."""

    problems: Sequence[Problem]
    prompts: Sequence[list[int]]
    pool: RewardPool
    """Runs the rewards that ``judged_by`` returns."""


def judged_by(rewards: Sequence[RewardConfig]) -> list[RewardConfig]:
    """Return the two rewards that an evaluation runs.

    The first judges whether the answer is right: the first configured reward that is one of ``VERIFIERS``, else the
    first configured reward, with weight 1 and without points for the form alone. The second measures whether an answer
    could be read at all.
    """
    judge = next((reward for reward in rewards if reward.name in VERIFIERS), rewards[0])
    options = {name: value for name, value in judge.options.items() if (judge.name, name) != FOR_THE_FORM}
    return [judge.model_copy(update={"weight": 1.0, "options": options}), RewardConfig(name=READABLE, weight=0.0)]


def evaluate(
    policy: Policy,
    asked: HeldOut,
    config: RunConfig,
    base: dict[str, Any] | None,
    batch_rows: int = EVALUATED_AT_ONCE,
    progress: Callable[[float], None] = lambda _: None,
    fixed: bool = False,
    adapter: bool = True,
    asking: Callable[..., list[Answer]] = ask,
) -> dict[str, Any]:
    """Answer every held-out problem twice, greedily and sampled, in one batch with one prefill per prompt.

    Returns the data of an ``evaluations`` row. ``base`` is the base model's row, for the paired differences; ``fixed``
    is as in ``decode``; without ``adapter`` the reference answers. All evaluations of a run use the same uniforms, so
    that two of them differ by the adapter alone. ``asking`` replaces ``ask`` if several processes share the work.
    """
    started = time.perf_counter()
    rows = [Row(number, adapter, greedy) for number in range(len(asked.problems)) for greedy in (True, False)]
    numbers = uniforms(len(rows), config.evaluation_tokens, derive_seed(config.run.seed, "evaluation"))
    answers = asking(
        policy,
        asked.problems,
        asked.prompts,
        rows,
        config.evaluation_tokens,
        Sampling.of(config.rollout),
        numbers,
        asked.pool,
        batch_rows,
        progress,
        fixed,
    )
    greedy, sampled = (_summary(answers[side::2]) for side in (0, 1))
    return {
        "problems": len(asked.problems),
        "ids": [problem.id for problem in asked.problems],
        "greedy": greedy,
        "sampled": sampled,
        "difference": _difference(base, "greedy", greedy),
        "difference_sampled": _difference(base, "sampled", sampled),
        "seconds": time.perf_counter() - started,
    }


def _summary(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return the accuracy over all answers, the number of unscorable ones, and the answers' texts."""
    return {
        **measure([answer.score for answer in answers]),
        "readable": sum(answer.readable for answer in answers) / len(answers),
        "answers": [answer.text for answer in answers],
    }


def _difference(base: dict[str, Any] | None, side: str, after: dict[str, Any]) -> dict[str, float] | None:
    """Return the change from the base model, paired by problem.

    It is computed from the scores, so that a base row from an older version can be used too.
    """
    return difference(base[side]["scores"], after["scores"]).as_json() if base else None
