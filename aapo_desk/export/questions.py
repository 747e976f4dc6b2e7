"""What an export is asked: the run's own held-out problems, in the prompts that the run asked them in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aapo_desk import tasks
from aapo_desk.config import RunConfig
from aapo_desk.export.distance import PROBED_PROMPTS
from aapo_desk.export.loading import Answer, Loaded
from aapo_desk.export.request import Source
from aapo_desk.rewards import Completion
from aapo_desk.store.unscorable import RECOUNTED, UNSCORABLE_AS
from aapo_desk.tasks import Problem
from aapo_desk.tasks.prompts import fit

MEASURED = ("accuracy", "low", "high", "unscorable", UNSCORABLE_AS, RECOUNTED)
"""What an export's record keeps of the run's own evaluations."""

Judge = Callable[[Sequence[Completion]], dict[str, Any]]
"""Greedy answers -> how many are right, as an evaluation measures it: accuracy, low, high, unscorable, scores."""


@dataclass(frozen=True)
class Questions:
    """Problems with their prompts as token ids. ``held_out`` is empty where the run evaluates nothing."""

    held_out: Sequence[Problem]
    held_out_prompts: Sequence[list[int]]
    probed: Sequence[list[int]]
    """Prompts that distributions are compared behind: the first held-out ones, else some that were trained on."""
    example: Problem
    """The problem of the first of them."""


def questions(config: RunConfig, tokenizer: Any) -> Questions:
    """Raises ConfigError where the data have gone or are no longer what they were."""
    data = tasks.load(config.task, config.run.seed)
    options = config.model.chat_template_options
    held_out = fit(tokenizer, data.held_out, config.task, options)
    count = min(config.evaluation.problems, len(held_out.problems))
    probed = held_out if held_out.problems else fit(tokenizer, data.train[:PROBED_PROMPTS], config.task, options)
    return Questions(
        held_out.problems[:count],
        held_out.prompts[:count],
        probed.prompts[:PROBED_PROMPTS],
        probed.problems[0],
    )


def held_out_accuracy(loaded: Loaded, asked: Questions, source: Source, judge: Judge) -> dict[str, Any]:
    """What the export answers right, beside what the run's evaluation of the same step found."""
    longest = source.config.evaluation_tokens
    answers = loaded.answer(list(asked.held_out_prompts), longest)
    completions = [
        Completion(answer.text, problem.problem, problem.answer, answer.tokens, longest, not answer.ended)
        for problem, answer in zip(asked.held_out, answers, strict=True)
    ]
    found = judge(completions)
    known = source.evaluations.get(source.step)
    ids = [problem.id for problem in asked.held_out]
    return {
        "problems": len(answers),
        "greedy": found,
        "answers": dict(
            zip((problem.id for problem in asked.held_out), (answer.text for answer in answers), strict=True)
        ),
        "run": None if known is None else _of_the_run(known, ids, answers, found["scores"]),
        "base": _accuracy(source.evaluations.get(0)),
    }


def _of_the_run(
    known: dict[str, Any], ids: list[str], answers: Sequence[Answer], scores: Sequence[float | None]
) -> dict[str, Any]:
    """The run's own figures, and on how many problems the export gives the very same answer, and the same score."""
    greedy = known["greedy"]
    said = dict(zip(known["ids"], greedy["answers"], strict=True))
    got = dict(zip(known["ids"], greedy["scores"], strict=True))
    return {
        **(_accuracy(known) or {}),
        "same_answers": sum(said.get(name) == answer.text for name, answer in zip(ids, answers, strict=True)),
        # An unscorable answer counts as a wrong one, here as in the accuracy.
        "same_scores": sum(
            name in got and (got[name] or 0.0) == (score or 0.0) for name, score in zip(ids, scores, strict=True)
        ),
    }


def _accuracy(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    return evaluation and {key: evaluation["greedy"][key] for key in MEASURED if key in evaluation["greedy"]}
