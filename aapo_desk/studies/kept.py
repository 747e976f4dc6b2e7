"""The stored results of ``aapo-desk eval``, grouped by what was evaluated, so that two runs can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aapo_desk.evaluation.results import (
    SIDES,
    EvaluationError,
    finished,
    measured_before,
    read_lines,
    score,
    summarise,
)
from aapo_desk.store import RunDirectory
from aapo_desk.store.unscorable import RECOUNTED, unscorable_notes
from aapo_desk.studies.held_out import Outcome, estimate


@dataclass(frozen=True)
class Kept:
    """One finished evaluation: its folder, its header, and its outcome."""

    folder: Path
    head: Mapping[str, Any]
    outcome: Outcome


def kept_evaluations(run: RunDirectory) -> dict[str, Kept]:
    """Return a run's newest evaluation for each set of questions. Equal keys mean equal questions and judges."""
    newest = {json.dumps(head["asked"], sort_keys=True): (folder, head) for folder, head in finished(run.evaluations)}
    return {key: Kept(folder, head, _outcome(folder, head["summary"])) for key, (folder, head) in newest.items()}


def _outcome(folder: Path, summary: Mapping[str, Any]) -> Outcome:
    """Return an evaluation's outcome, counted again from its lines if an older version left unscorable answers out."""
    try:
        lines = read_lines(folder)
    except EvaluationError:  # Without the lines only the stored accuracies remain.
        lines = []
    if lines and measured_before(summary):
        again = summarise(lines)
        summary = again | {side: {**again[side], RECOUNTED: True} for side in SIDES if side in again}
    scores = {line["id"]: score(line, "tuned") for line in lines if "tuned" in line}
    sides = {side: summary[side] for side in SIDES if side in summary}
    return Outcome(
        estimate(summary.get("base"), "accuracy"),
        estimate(summary.get("tuned"), "accuracy"),
        estimate(summary.get("difference"), "mean"),
        scores,
        [note for side, data in sides.items() for note in unscorable_notes({side: data}, data.get("answers") or 0)],
        measured_before(summary),
    )
