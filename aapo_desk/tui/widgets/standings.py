"""A comparison of runs as text: their progress and values, their evaluations, and the settings that differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from textual.content import Content

from aapo_desk.evaluation import Estimate
from aapo_desk.studies import Axis, Comparison, Entry, difference, figure
from aapo_desk.tui.labels import duration, number, state_label
from aapo_desk.tui.text import one_line
from aapo_desk.tui.widgets.overlay import SAMPLE, sample

STYLES = dict(zip("ABCDEF", ("primary", "secondary", "success", "accent", "error", "warning"), strict=True))
FAINT = "$foreground 70%"
LEAST_NAME, MOST_NAME = 10, 40
LEAST_PATH = 16
SETTINGS = "what differs"
WIDEST_VALUE = 26
ROOMY = 100
LEAD = len("A ") + SAMPLE + 2
MOST_EVALUATED = 70  # largest width of an evaluation in its short form, without its lead

Row = Sequence[str]


def runs_text(comparison: Comparison, axis: Axis, x: float | None, width: int) -> Content:
    """Return a line for each run: its progress, its smoothed value and the difference from the baseline's.

    The value is that at ``x``, or the last one if ``x`` is None.
    """
    baseline = comparison.baseline
    roomy = width >= ROOMY
    counted = ["completions"] if roomy else []
    rows: list[Row] = [["run", "state", "steps", "time", "tokens", *counted, "value", f"vs {baseline.letter}"]]
    early = False
    for entry in comparison.entries:
        standing, totals = comparison.standing(entry, axis, x), entry.totals
        against = "baseline" if entry is baseline else figure(standing.difference, "+")
        if standing.at is not None and standing.at != standing.x:
            early, against = True, f"{against}*"
        rows.append(
            [
                one_line(entry.name),
                state_label(entry.state),
                str(totals.steps) if totals.steps else "none",
                "–" if totals.seconds is None else duration(totals.seconds),
                amount(totals.tokens),
                *([amount(totals.completions)] if roomy else []),
                figure(standing.value),
                against,
            ]
        )
    room = width - LEAD - sum(_widths(rows)[1:]) - 2 * (len(rows[0]) - 1)
    name = max(LEAST_NAME, min(MOST_NAME, room))
    notes = [f"{entry.letter}: {one_line(entry.problem)}" for entry in comparison.entries if entry.problem]
    notes += [f"* at the last {_unit(axis)} that both have reached"] if early else []
    return _table(comparison.entries, rows, [name], left={0, 1}, notes=notes)


def evaluations_text(comparison: Comparison, width: int) -> Content:
    """Return a line for each run: greedy held-out accuracy, base and tuned, the gain, the distance to the baseline."""
    baseline = comparison.baseline
    short = width < ROOMY
    rows: list[Row] = [["held out: base → tuned", "gain", f"tuned, vs {baseline.letter}"]]
    paired = unpaired = False
    for entry in comparison.entries:
        final = entry.final
        if final is None:
            rows.append(["not evaluated", "", ""])
            continue
        base = final.greedy.base
        before = number(base.mean if base else None) if short else interval(base)
        after = interval(final.greedy.tuned) if final.step else "not yet"
        against = "baseline" if entry is baseline else "–"
        found = difference(baseline.final, final, "greedy") if baseline.final and entry is not baseline else None
        if found:
            paired, unpaired = paired or found.paired, unpaired or not found.paired
            against = interval(found.estimate, "+") + ("" if found.paired else "*")
        rows.append([f"{before} → {after}", interval(final.greedy.gain, "+"), against])
    notes = ["[95 % interval]" + (f"; vs {baseline.letter}: paired by problem" if paired else "")]
    notes += ["* not paired: different problems or another scoring reward"] if unpaired else []
    notes += [f"{one.letter}, {note}" for one in comparison.entries if one.final for note in one.final.greedy.notes]
    return _table(comparison.entries, rows, [], left={0, 1, 2}, notes=notes, sampled=width >= LEAD + MOST_EVALUATED)


def settings_text(comparison: Comparison, width: int) -> Content:
    """Return a line for each setting that differs between the runs."""
    differing = comparison.differing()
    if not differing:
        return Content.styled("all settings are the same", FAINT)
    count = len(comparison.entries)
    longest = max(cell_len(_setting(value)) for values in differing.values() for value in values)
    size = max(1, min(WIDEST_VALUE, longest, (width - LEAST_PATH) // count - 2))
    path = min(max(len(SETTINGS), *map(len, differing)), max(LEAST_PATH, width - count * (size + 2)))
    head = Content(_fit(SETTINGS, path)).stylize(FAINT)
    for entry in comparison.entries:
        head += Content.assemble("  ", (f"{entry.letter:<{size}}", _style(entry.letter)))
    lines = [head]
    for setting, values in differing.items():
        cells = [_fit(_setting(value), size) for value in values]
        lines.append(Content("  ".join([_fit_end(setting, path), *cells])))
    return Content("\n").join(lines)


def interval(estimate: Estimate | None, sign: str = "") -> str:
    """Format an estimate with its 95 % interval, as in ``0.56 [0.46, 0.66]``."""
    if estimate is None:
        return "–"
    value, low, high = (format(each, f"{sign}.2f") for each in (estimate.mean, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def amount(count: float | None) -> str:
    """Format a count in short form, as in ``812``, ``12.3k`` or ``4.56M``."""
    if count is None:
        return "–"
    for size, letter, digits in ((1e9, "G", 2), (1e6, "M", 2), (1e3, "k", 1)):
        if count >= size:
            return f"{count / size:.{digits}f}{letter}"
    return f"{count:.0f}"


def _unit(axis: Axis) -> str:
    return {"step": "step", "time": "moment", "tokens": "token"}[axis]


def _setting(value: Any) -> str:
    if isinstance(value, str):
        return one_line(value)
    return "–" if value is None else one_line(json.dumps(value, ensure_ascii=False))


def _style(letter: str) -> str:
    return f"bold $text-{STYLES[letter]}"


def _widths(rows: Sequence[Row]) -> list[int]:
    return [max(cell_len(row[column]) for row in rows) for column in range(len(rows[0]))]


def _table(
    entries: Sequence[Entry],
    rows: Sequence[Row],
    widths: Sequence[int],
    left: set[int],
    notes: Sequence[str],
    sampled: bool = True,
) -> Content:
    """Return a heading and a line for each run, led by its letter and, if ``sampled``, by a piece of its curve.

    ``widths`` are the widths of the first columns; ``left`` holds the indices of the columns that are left-aligned.
    """
    sizes = [*widths, *_widths(rows)[len(widths) :]]
    leads = [("", FAINT)]
    leads += [(f"{one.letter} {sample(one.letter)}" if sampled else one.letter, _style(one.letter)) for one in entries]
    lines = []
    for (lead, style), row in zip(leads, rows, strict=True):
        cells = [
            _fit(cell, size) if column in left else " " * (size - cell_len(cell)) + cell
            for column, (cell, size) in enumerate(zip(row, sizes, strict=True))
        ]
        text = ("  ".join(cells).rstrip(), "" if lead else FAINT)
        lines.append(Content.assemble((f"{lead:<{LEAD - 2 if sampled else 1}}  ", style), text))
    return Content("\n").join([*lines, *(Content.styled(note, FAINT) for note in notes)])


def _fit(text: str, width: int) -> str:
    """Return the text in exactly ``width`` cells, cut with an ellipsis or padded."""
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def _fit_end(text: str, width: int) -> str:
    """Return a path in ``width`` cells; if it is too long its start is cut, since its end tells the most."""
    return f"{text:<{width}}" if len(text) <= width else f"…{text[1 - width :]}"
