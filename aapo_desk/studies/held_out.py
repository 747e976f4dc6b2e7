"""A run's last evaluation, and the difference between two runs' final accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aapo_desk.evaluation import Estimate, paired_difference, unpaired_difference
from aapo_desk.evaluation.accuracy import DIFFERENCES, as_wrong, recounted
from aapo_desk.rewards.builtin import VERIFIERS
from aapo_desk.store.unscorable import leaves_out, unscorable_notes

Side = Literal["greedy", "sampled"]
NAME = "held_out"
SIDES: tuple[Side, ...] = ("greedy", "sampled")
SAME_PROBLEMS = ("source", "split", "problem_column", "answer_column", "options")


@dataclass(frozen=True)
class Outcome:
    """The accuracies of base and tuned model, the paired gain, and the tuned model's score by problem id.

    All of them count unscorable answers as wrong, unless ``leaves_out`` is true: then an older version measured them
    without these answers, and the scores needed to count them again are missing. ``notes`` give the number of
    unscorable answers.
    """

    base: Estimate | None
    tuned: Estimate | None
    gain: Estimate | None
    scores: Mapping[str, float]
    notes: Sequence[str] = ()
    leaves_out: bool = False


@dataclass(frozen=True)
class FinalEvaluation:
    """A run's final evaluation. ``step`` is that of the tuned model, or 0 if only the base model was evaluated.

    ``judged`` identifies the problems and the reward that judged the answers.
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
    """The difference of two runs' accuracies. ``problems`` is the number of pairs; None if it is not paired."""

    estimate: Estimate
    problems: int | None

    @property
    def paired(self) -> bool:
        return self.problems is not None


def final_evaluation(evaluations: Mapping[int, Mapping[str, Any]], config: Mapping[str, Any]) -> FinalEvaluation | None:
    """Return the final evaluation from the ``evaluations`` rows by step and the run's unvalidated configuration.

    Rows that an older version measured without the unscorable answers are counted again. None without any rows.
    """
    if not evaluations:
        return None
    last = max(evaluations)
    evaluations = recounted(evaluations)
    base, tuned = evaluations.get(0), evaluations[last] if last else None
    newest = evaluations[last]
    sides = {side: _outcome(base, tuned, newest.get("ids") or [], side) for side in SIDES}
    return FinalEvaluation(last, int(newest.get("problems") or 0), sides["greedy"], sides["sampled"], _judged(config))


def difference(before: FinalEvaluation, after: FinalEvaluation, side: Side) -> Difference | None:
    """Return after - before of the tuned accuracies, paired by problem if both had the same problems and judge."""
    return between(before.side(side), after.side(side), before.judged == after.judged)


def between(old: Outcome, new: Outcome, comparable: bool) -> Difference | None:
    """Return new - old of the tuned accuracies; ``comparable``: both had the same kind of problems and the same judge.

    Returns None if one of them is missing or leaves unscorable answers out, since they then measure different things.
    """
    if old.tuned is None or new.tuned is None or old.leaves_out or new.leaves_out:
        return None
    if comparable and old.scores and old.scores.keys() == new.scores.keys():
        paired = paired_difference(list(old.scores.values()), [new.scores[key] for key in old.scores])
        return Difference(paired, len(old.scores))
    return Difference(unpaired_difference(old.tuned, new.tuned), None)


def _outcome(
    base: Mapping[str, Any] | None, tuned: Mapping[str, Any] | None, ids: Sequence[str], side: Side
) -> Outcome:
    rows = {"base": base or {}, "tuned": tuned or {}}
    sides = {who: row.get(side) or {} for who, row in rows.items()}
    scores = as_wrong(sides["tuned"].get("scores") or [])
    return Outcome(
        estimate(sides["base"], "accuracy"),
        estimate(sides["tuned"], "accuracy"),
        estimate(rows["tuned"].get(DIFFERENCES[side]), "mean"),
        dict(zip(ids, scores, strict=True)) if len(ids) == len(scores) else {},
        [note for who in rows for note in unscorable_notes({who: sides[who]}, int(rows[who].get("problems") or 0))],
        any(map(leaves_out, sides.values())),
    )


def estimate(data: Mapping[str, Any] | None, key: str) -> Estimate | None:
    """Return a stored interval whose mean is under ``key``; None if any part of it is missing."""
    values = [(data or {}).get(name) for name in (key, "low", "high")]
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return Estimate(*numbers) if len(numbers) == len(values) else None


def _judged(config: Mapping[str, Any]) -> Sequence[Any]:
    """Return what must be equal for two runs' scores of a problem to be paired.

    The judge is chosen as in the evaluation package's ``judged_by``.
    """
    task = config.get("task") or {}
    rewards = config.get("rewards") or [{}]
    judge = next((reward for reward in rewards if reward.get("name") in VERIFIERS), rewards[0])
    return [*(task.get(key) for key in SAME_PROBLEMS), judge.get("name"), judge.get("options")]
