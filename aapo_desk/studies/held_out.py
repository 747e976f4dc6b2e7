"""The last evaluation of a run, and whether one run ended better than another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aapo_desk.evaluation import Estimate, paired_where_both, unpaired_difference
from aapo_desk.rewards.builtin import VERIFIERS

Side = Literal["greedy", "sampled"]
NAME = "held_out"
GAINS: dict[Side, str] = {"greedy": "difference", "sampled": "difference_sampled"}
SAME_PROBLEMS = ("source", "split", "problem_column", "answer_column", "options")


@dataclass(frozen=True)
class Outcome:
    """Accuracy of the base model and of the tuned one, the paired gain, and the tuned one's score by problem id."""

    base: Estimate | None
    tuned: Estimate | None
    gain: Estimate | None
    scores: Mapping[str, float | None]


@dataclass(frozen=True)
class FinalEvaluation:
    """``step`` is that of the tuned model, 0 where only the base was evaluated yet.

    ``judged`` tells what the problems and the reward that judged them were.
    """

    step: int
    problems: int
    greedy: Outcome
    sampled: Outcome
    judged: Sequence[Any]

    def side(self, side: Side) -> Outcome:
        return self.greedy if side == "greedy" else self.sampled


@dataclass(frozen=True)
class Difference:
    """Of two runs' accuracies. ``problems``: over how many both were scored; None where it is not paired."""

    estimate: Estimate
    problems: int | None

    @property
    def paired(self) -> bool:
        return self.problems is not None


def final_evaluation(evaluations: Mapping[int, Mapping[str, Any]], config: Mapping[str, Any]) -> FinalEvaluation | None:
    """From ``evaluations`` rows by step and the run's configuration as it lies in its folder."""
    if not evaluations:
        return None
    last = max(evaluations)
    base, tuned = evaluations.get(0), evaluations[last] if last else None
    newest = evaluations[last]
    sides = {side: _outcome(base, tuned, newest.get("ids") or [], side) for side in GAINS}
    return FinalEvaluation(last, int(newest.get("problems") or 0), sides["greedy"], sides["sampled"], _judged(config))


def difference(before: FinalEvaluation, after: FinalEvaluation, side: Side) -> Difference | None:
    """after - before of the tuned accuracies, problem by problem where both scored the same ones in the same way."""
    return between(before.side(side), after.side(side), before.judged == after.judged)


def between(old: Outcome, new: Outcome, comparable: bool) -> Difference | None:
    """new - old of the tuned accuracies; ``comparable`` tells whether they were asked and judged in the same way."""
    if old.tuned is None or new.tuned is None:
        return None
    same = comparable and old.scores and old.scores.keys() == new.scores.keys()
    paired = paired_where_both(list(old.scores.values()), [new.scores[key] for key in old.scores]) if same else None
    return Difference(*paired) if paired else Difference(unpaired_difference(old.tuned, new.tuned), None)


def _outcome(
    base: Mapping[str, Any] | None, tuned: Mapping[str, Any] | None, ids: Sequence[str], side: Side
) -> Outcome:
    scores = ((tuned or {}).get(side) or {}).get("scores") or []
    return Outcome(
        estimate((base or {}).get(side), "accuracy"),
        estimate((tuned or {}).get(side), "accuracy"),
        estimate((tuned or {}).get(GAINS[side]), "mean"),
        dict(zip(ids, scores, strict=True)) if len(ids) == len(scores) else {},
    )


def estimate(data: Mapping[str, Any] | None, key: str) -> Estimate | None:
    """An interval as it is kept, its mean under ``key``; None where some of it is missing."""
    values = [(data or {}).get(name) for name in (key, "low", "high")]
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return Estimate(*numbers) if len(numbers) == len(values) else None


def _judged(config: Mapping[str, Any]) -> Sequence[Any]:
    """What must be equal for two runs' scores of a problem to be a pair; the judge is evaluation's ``judged_by``."""
    task = config.get("task") or {}
    rewards = config.get("rewards") or [{}]
    judge = next((reward for reward in rewards if reward.get("name") in VERIFIERS), rewards[0])
    return [*(task.get(key) for key in SAME_PROBLEMS), judge.get("name"), judge.get("options")]
