"""The held-out problems of the run, with the run's own prompts, to evaluate an export on."""

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
"""The keys of the run's own evaluations that an export's record contains."""

Judge = Callable[[Sequence[Completion]], dict[str, Any]]
"""Maps greedy answers to the results of an evaluation: accuracy, low, high, unscorable, scores."""


@dataclass(frozen=True)
class Questions:
    """Problems with their prompts as token ids. ``held_out`` is empty if the run has no evaluation."""

    held_out: Sequence[Problem]
    held_out_prompts: Sequence[list[int]]
    probed: Sequence[list[int]]
    """Prompts after which distributions are compared: the first held-out ones, else some training prompts."""
    example: Problem
    """The problem of the first prompt in ``probed``."""


def questions(config: RunConfig, tokenizer: Any) -> Questions:
    """Load the problems of the run and render their prompts. Raises ConfigError if the data cannot be loaded."""
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
    """Measure the held-out accuracy of the export, and add the run's own evaluations of this step and of step 0."""
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
    """Return the run's own results, and on how many problems the export gives the same answer and the same score."""
    greedy = known["greedy"]
    said = dict(zip(known["ids"], greedy["answers"], strict=True))
    got = dict(zip(known["ids"], greedy["scores"], strict=True))
    return {
        **(_accuracy(known) or {}),
        "same_answers": sum(said.get(name) == answer.text for name, answer in zip(ids, answers, strict=True)),
        # An unscorable answer counts as wrong, as in the accuracy.
        "same_scores": sum(
            name in got and (got[name] or 0.0) == (score or 0.0) for name, score in zip(ids, scores, strict=True)
        ),
    }


def _accuracy(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    return evaluation and {key: evaluation["greedy"][key] for key in MEASURED if key in evaluation["greedy"]}
