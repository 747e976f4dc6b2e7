"""Saving a comparison to a file: a picture, or every step as CSV."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from aapo_desk.config import ConfigError, Problem
from aapo_desk.store import RunDirectory
from aapo_desk.studies.comparison import Comparison
from aapo_desk.studies.curve import Axis, Curve

PICTURES = (".png", ".svg")
TABLES = (".csv",)


def save_ending(path: Path, endings: Sequence[str] = PICTURES + TABLES, option: str = "file") -> str:
    """Return the path's file name extension in lower case. Raises ConfigError if it is not one of ``endings``."""
    ending = path.suffix.lower()
    if ending not in endings:
        raise ConfigError(Problem(option, f"must end in {' or '.join(endings)}", str(path)))
    return ending


def save(path: Path, comparison: Comparison, axis: Axis) -> None:
    """Write a picture or a CSV file, depending on the path's extension.

    Raises ConfigError for any other extension, PicturesMissing if matplotlib is not installed, OSError if the file
    cannot be written, and the errors of reading a run.
    """
    if save_ending(path) in TABLES:
        write_csv(path, [entry.run for entry in comparison.entries])
        return
    from aapo_desk.studies.pictures import draw

    draw(path, comparison, axis)


def write_csv(path: Path, runs: Sequence[RunDirectory]) -> None:
    """Write one line per step and run: run, step, seconds trained, tokens of completions so far, all metrics.

    An empty cell is a missing value. Raises as ``save``.
    """
    curves = [Curve(run) for run in runs]
    for curve in curves:
        curve.read("")
    keys = list(dict.fromkeys(key for curve in curves for key in curve.keys))
    with put_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["run", "step", "seconds", "tokens", *keys])
        for run, curve in zip(runs, curves, strict=True):
            name = run.name
            rows = zip(curve.seconds, curve.tokens, curve.reader.rows(keys), strict=False)
            for seconds, tokens, (step, _, *values) in rows:
                spent = round(tokens) if math.isfinite(tokens) else None
                lines.writerow([name, step, f"{seconds:.3f}", spent, *values])


@contextmanager
def put_aside(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` on success, so that no partly written file is ever visible."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
