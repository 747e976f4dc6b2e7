"""What ``aapo-desk eval`` has kept of a run, by what was asked: that is what two runs can be compared on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aapo_desk.evaluation.results import EvaluationError, finished, read_lines, score
from aapo_desk.store import RunDirectory
from aapo_desk.studies.held_out import Outcome, estimate


@dataclass(frozen=True)
class Kept:
    """One finished evaluation: where it lies, its head, and what came of it."""

    folder: Path
    head: Mapping[str, Any]
    outcome: Outcome


def kept_evaluations(run: RunDirectory) -> dict[str, Kept]:
    """The newest of a run's evaluations for each thing that was asked; equal keys were asked and judged alike."""
    newest = {json.dumps(head["asked"], sort_keys=True): (folder, head) for folder, head in finished(run.evaluations)}
    return {key: Kept(folder, head, _outcome(folder, head["summary"])) for key, (folder, head) in newest.items()}


def _outcome(folder: Path, summary: Mapping[str, Any]) -> Outcome:
    try:
        scores = {line["id"]: score(line, "tuned") for line in read_lines(folder) if "tuned" in line}
    except EvaluationError:  # then the accuracies stand alone
        scores = {}
    return Outcome(
        estimate(summary.get("base"), "accuracy"),
        estimate(summary.get("tuned"), "accuracy"),
        estimate(summary.get("difference"), "mean"),
        scores,
    )
