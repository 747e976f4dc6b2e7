"""Drawing a study as a picture with matplotlib (the extra ``plots``): curves with bands, and final accuracies."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from aapo_desk.evaluation import Estimate
from aapo_desk.studies.files import PICTURES, put_aside, save_ending
from aapo_desk.studies.findings import ArmFindings, Findings
from aapo_desk.studies.pictures import COLOURS, DASHES, DPI, MARKERS, MARKS, check_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (12.0, 5.5)  # inches
WIDTHS = (3, 1.3, 1.3)
SAID_BY = {"steps": "step", "seconds": "seconds of training", "completions": "sampled completions"}


def draw(path: Path, findings: Findings) -> None:
    """Write the picture as PNG or SVG, depending on the path's extension. Raises as ``pictures.draw``."""
    ending = save_ending(path, PICTURES)
    check_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "aapo-desk"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
        curves, right, apart = figure.subplots(1, 3, width_ratios=WIDTHS)
        _curves(curves, findings)
        _right(right, findings)
        _apart(apart, findings)
        figure.suptitle(_printable(findings.study.words), x=0.01, ha="left", parse_math=False, fontsize="medium")
        with put_aside(path) as aside:
            figure.savefig(aside, format=ending[1:], metadata={"Date": None} if ending == ".svg" else {})


def _curves(axes: Axes, findings: Findings) -> None:
    for arm in findings.arms:
        band, letter = arm.band, arm.letter
        axes.fill_between(band.xs, band.low, band.high, color=COLOURS[letter], alpha=0.18, linewidth=0)
        axes.plot(
            band.xs,
            band.mean,
            color=COLOURS[letter],
            linestyle=DASHES[letter],
            marker=MARKERS[letter],
            markevery=max(1, len(band.xs) // MARKS),
            markersize=5,
            linewidth=1.8,
            label=_label(arm),
        )
    axes.set_xlabel(SAID_BY[findings.study.budget.kind])
    axes.set_title(
        f"{findings.metric}: mean over seeds, lowest to highest", parse_math=False, loc="left", fontsize="medium"
    )
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    for text in axes.legend(frameon=False).get_texts():
        text.set_parse_math(False)


def _label(arm: ArmFindings) -> str:
    count = arm.band.seeds
    return f"{arm.letter}  {_printable(arm.label)} ({count} seed{'' if count == 1 else 's'})"


def _right(axes: Axes, findings: Findings) -> None:
    """Draw each arm's base and tuned accuracy."""
    for number, arm in enumerate(findings.arms):
        outcome = arm.sides["greedy"]
        _interval(axes, number - 0.12, outcome.base, "0.55", "o")
        _interval(axes, number + 0.12, outcome.tuned, COLOURS[arm.letter], MARKERS[arm.letter])
    _rows(axes, findings, "held-out accuracy\n(grey: base model)")
    notes = [f"{arm.letter}, {note}" for arm in findings.arms for note in arm.sides["greedy"].notes]
    axes.set_xlabel("\n".join(notes), fontsize="x-small")


def _apart(axes: Axes, findings: Findings) -> None:
    """Draw each arm's difference to the first arm."""
    axes.axvline(0.0, color="0.4", linewidth=1)
    for number, arm in enumerate(findings.arms):
        against = arm.sides["greedy"].against
        if against:
            _interval(axes, number, against.estimate, COLOURS[arm.letter], MARKERS[arm.letter])
            axes.annotate(against.words, (against.estimate.mean, number), xytext=(0, 8), textcoords="offset points",
                          ha="center", fontsize="small")  # fmt: skip
    _rows(axes, findings, f"tuned model, minus arm {findings.arms[0].letter}\n(95 % intervals)")


def _interval(axes: Axes, place: float, estimate: Estimate | None, colour: str, marker: str) -> None:
    if estimate:
        axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=2)
        axes.plot([estimate.mean], [place], color=colour, marker=marker, markersize=7)


def _rows(axes: Axes, findings: Findings, title: str) -> None:
    axes.set_yticks(range(len(findings.arms)), [arm.letter for arm in findings.arms])
    axes.set_ylim(len(findings.arms) - 0.5, -0.5)
    axes.set_title(title, loc="left", fontsize="medium")
    axes.grid(alpha=0.3, axis="x")
    axes.spines[["top", "right"]].set_visible(False)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
