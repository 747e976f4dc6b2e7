"""Rows of the evaluations table with given scores, as this version writes them and as older ones did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aapo_desk.evaluation import proportion
from aapo_desk.evaluation.asking import Answer
from aapo_desk.evaluation.held_out import HeldOut, evaluate
from aapo_desk.tasks import Problem
from tests import run_data

Scores = Sequence[float | None]


def row(scores: Scores, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the trainer's evaluation if the answers to p0, p1, ... get these scores, greedy and sampled."""
    problems = [Problem(f"p{number}", "1 + 1", "2") for number in range(len(scores))]
    answers = [Answer("2", "2", score, 1.0, 1, False, None) for score in scores for _ in range(2)]
    held_out = HeldOut(problems, [[1]] * len(problems), pool=None)  # type: ignore[arg-type]
    return evaluate(None, held_out, run_data.config(), base, asking=lambda *_: answers)  # type: ignore[arg-type]


def old_row(scores: Scores, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """The same from an older version: unscorable answers left out, and no field that says so."""
    scorable = [score for score in scores if score is not None]
    share = proportion(scorable) if scorable else None
    side = {
        "accuracy": share and share.mean,
        "low": share and share.low,
        "high": share and share.high,
        "readable": 1.0,
        "unscorable": len(scores) - len(scorable),
        "scores": list(scores),
        "answers": ["2"] * len(scores),
    }
    gain = {"mean": 0.5, "low": -0.5, "high": 1.0} if base else None
    ids = [f"p{number}" for number in range(len(scores))]
    facts = {"problems": len(scores), "ids": ids, "seconds": 1.0}
    return facts | {"greedy": side, "sampled": side, "difference": gain, "difference_sampled": gain}
