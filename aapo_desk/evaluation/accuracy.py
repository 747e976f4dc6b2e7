"""Accuracy: the share of all answers that are right. An answer that could not be scored counts as wrong.

An answer is unscorable (its score is None) if the verifier hung or crashed on it. If such answers were left out, a
policy that learns to break the verifier would look better than it is: every answer that breaks it would be one fewer
wrong answer. The stored scores keep None, so that an accuracy can always be computed again. What older versions
measured differently is described in ``aapo_desk.store.unscorable``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aapo_desk.evaluation.intervals import Estimate, paired_difference, proportion
from aapo_desk.store.unscorable import RECOUNTED, UNSCORABLE_AS, WRONG, leaves_out

DIFFERENCES = {"greedy": "difference", "sampled": "difference_sampled"}
"""For each side of an ``evaluations`` row, the field with its paired difference from the base model."""

Evaluation = Mapping[str, Any]


def as_wrong(scores: Sequence[float | None]) -> list[float]:
    """Return the scores, with 0 for each answer that could not be scored."""
    return [0.0 if score is None else score for score in scores]


def measure(scores: Sequence[float | None]) -> dict[str, Any]:
    """Return the accuracy over all answers with its 95 % interval, the number of unscorable answers, and the scores.

    The scores are returned unchanged, with None for unscorable answers. Raises ValueError if there are no scores.
    """
    found = proportion(as_wrong(scores))
    return {
        "accuracy": found.mean,
        "low": found.low,
        "high": found.high,
        "unscorable": sum(score is None for score in scores),
        UNSCORABLE_AS: WRONG,
        "scores": list(scores),
    }


def difference(before: Sequence[float | None], after: Sequence[float | None]) -> Estimate:
    """Return ``paired_difference`` over all problems; a problem without a score counts as wrong on that side."""
    return paired_difference(as_wrong(before), as_wrong(after))


def recounted(evaluations: Mapping[int, Evaluation]) -> dict[int, dict[str, Any]]:
    """Return a run's evaluations by step (0 is the base model's), with every accuracy taken over all answers.

    Rows from older versions, which left unscorable answers out, are computed again from their scores, and so are the
    differences from the base model. A row that does not have the scores for that stays as it was measured.
    """
    base = evaluations.get(0)
    return {step: _recounted(row, base if step else None) for step, row in evaluations.items()}


def on_one_rule(evaluations: Mapping[int, Evaluation]) -> Mapping[int, Evaluation]:
    """Return the evaluations as they were measured if all of them left unscorable answers out, else ``recounted``.

    A run that an older version began and this version continued has rows of both kinds.
    """
    marked = any(UNSCORABLE_AS in (row.get(side) or {}) for row in evaluations.values() for side in DIFFERENCES)
    return recounted(evaluations) if marked else evaluations


def _recounted(row: Evaluation, base: Evaluation | None) -> dict[str, Any]:
    found = dict(row)
    for name, field in DIFFERENCES.items():
        side = row.get(name) or {}
        if UNSCORABLE_AS in side:
            continue
        scores = side.get("scores") or []
        if not scores:
            continue
        if leaves_out(side):
            found[name] = {**side, **measure(scores), RECOUNTED: True}
        before = _scores_of_same_problems(base, row, name)
        if None in scores or None in before:
            found[field] = difference(before, scores).as_json() if len(before) == len(scores) else None
    return found


def _scores_of_same_problems(base: Evaluation | None, row: Evaluation, side: str) -> Sequence[float | None]:
    """Return the base model's scores in the order of ``row``'s problems; empty if it was asked other problems."""
    if base is None or base.get("ids") != row.get("ids"):
        return []
    return (base.get(side) or {}).get("scores") or []
