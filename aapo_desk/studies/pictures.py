"""Drawing a comparison as a picture with matplotlib (the extra ``plots``)."""

from __future__ import annotations

import importlib.util
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aapo_desk.studies.comparison import LETTERS, Comparison, Entry
from aapo_desk.studies.curve import Axis, Points
from aapo_desk.studies.files import PICTURES, put_aside, save_ending

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which people with any kind of colour vision can distinguish. Dashes and markers differ too,
# so that curves never differ by colour alone.
COLOURS = dict(zip(LETTERS, ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"), strict=True))
DASHES: dict[str, Any] = dict(
    zip(
        LETTERS, ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (7, 2, 1, 2)), (0, (2, 2)), (0, (5, 1, 1, 1, 1, 1))), strict=True
    )
)
MARKERS = dict(zip(LETTERS, "os^Dvx", strict=True))
MARKS = 8  # Markers on a curve: enough to recognise it, few enough not to hide it.
SIZE, DPI = (10.0, 6.0), 150  # Inches, dots per inch.
HOUR = 3600.0


class PicturesMissing(RuntimeError):
    """Raised if matplotlib is not installed; the message says what to do."""


def check_matplotlib() -> None:
    """Raise PicturesMissing if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise PicturesMissing("pictures need matplotlib; install it with: pip install 'aapo-desk[plots]'")


def draw(path: Path, comparison: Comparison, axis: Axis) -> None:
    """Write the curves as PNG or SVG, depending on the path's extension.

    Each run has its own letter, colour, dashes and marker; a smoothed curve is drawn over its unsmoothed values.
    Raises ConfigError for any other extension, PicturesMissing, and OSError if the file cannot be written.
    """
    ending = save_ending(path, PICTURES)
    check_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "aapo-desk"}), warnings.catch_warnings():
        # A run's name may use a script that the font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        hours = max((entry.points.reach("time") or 0.0 for entry in comparison.entries), default=0.0) > HOUR
        for entry in comparison.entries:
            _draw_run(axes, entry, comparison, axis, HOUR if hours and axis == "time" else 1.0)
        _label(axes, comparison, axis, "h" if hours else "s")
        with put_aside(path) as aside:
            date = {"Date": None} if ending == ".svg" else {}
            figure.savefig(aside, format=ending[1:], metadata=date)


def _draw_run(axes: Axes, entry: Entry, comparison: Comparison, axis: Axis, unit: float) -> None:
    points, letter = entry.points, entry.letter
    xs = [x / unit for x in points.xs(axis)]
    colour = COLOURS[letter]
    if comparison.smoothing:
        axes.plot(xs, points.values, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(
        xs,
        points.smooth,
        color=colour,
        linestyle=DASHES[letter],
        marker=MARKERS[letter],
        markevery=max(1, len(xs) // MARKS),
        markersize=5,
        linewidth=1.8,
        label=label(entry, comparison),
    )
    if end := _end(points, xs):
        axes.annotate(letter, end, xytext=(6, 0), textcoords="offset points", color=colour, va="center", weight="bold")


def _end(points: Points, xs: list[float]) -> tuple[float, float] | None:
    """Return the last point that can be drawn; None if there is none."""
    drawn = [(x, y) for x, y in zip(xs, points.smooth, strict=True) if math.isfinite(x) and math.isfinite(y)]
    return drawn[-1] if drawn else None


def _label(axes: Axes, comparison: Comparison, axis: Axis, unit: str) -> None:
    names = {"step": "step", "time": f"training time ({unit})", "tokens": "tokens of completions"}
    smoothed = f" (exponential mean, {comparison.smoothing:g})" if comparison.smoothing else ""
    axes.set_xlabel(names[axis])
    axes.set_ylabel(comparison.metric, parse_math=False)
    axes.set_title(f"{comparison.metric}{smoothed}", parse_math=False, loc="left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    for text in axes.legend(frameon=False).get_texts():
        text.set_parse_math(False)


def label(entry: Entry, comparison: Comparison) -> str:
    """Return a run's text in the legend: its letter, its name, and whether it is the baseline or has no values."""
    name = "".join(character if character.isprintable() else "?" for character in entry.name)
    notes = ["baseline"] if entry is comparison.baseline and len(comparison.entries) > 1 else []
    if _end(entry.points, list(entry.points.steps)) is None:
        notes.append(f"no {comparison.metric}" if len(entry.points.steps) else "no steps")
    return f"{entry.letter}  {name}" + (f" ({', '.join(notes)})" if notes else "")
