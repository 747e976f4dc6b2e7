"""A chart of several runs' curves in one frame, each with its own letter, dash pattern and colour."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, islice
from typing import ClassVar

from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from aapo_desk.tui.widgets.braille import Frame, Series, columns, draw, place, tick_labels, ticks
from aapo_desk.tui.widgets.cells import Piece, runs, strip

# Numbers of dots drawn and skipped in turn, so that lines can be told apart without colour. The first run's is solid.
DASHES: dict[str, tuple[int, ...]] = {
    "A": (1, 0),
    "B": (6, 4),
    "C": (2, 2),
    "D": (4, 1, 1, 2),
    "E": (1, 3),
    "F": (3, 1, 1, 1, 1, 1),
}
CURSOR, AXIS = "cursor", ""
SAMPLE = 4  # length of a line in a legend, in characters


@dataclass(frozen=True)
class Line:
    """A run's values ``ys`` at ascending ``xs``, NaN if missing.

    ``edges`` are the edges of a band around the values, drawn as dotted lines.
    """

    letter: str
    xs: Sequence[float]
    ys: Sequence[float]
    edges: Sequence[Sequence[float]] = ()


class OverlayChart(Widget):
    """A chart of several lines. Its first row is the title, its last row the x axis."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "overlay--title",
        "overlay--axis",
        "overlay--cursor",
        *(f"run--{letter.lower()}" for letter in DASHES),
    }
    ALLOW_SELECT = False

    class Picked(Message):
        """The user clicked at the position ``x`` of the x axis."""

        def __init__(self, x: float) -> None:
            super().__init__()
            self.x = x

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._title = ""
        self._waiting = ""
        self._lines: list[Line] = []
        self._label: Callable[[float], str] = str
        self._cursor: float | None = None
        self._drawn_for: tuple[int, int] | None = None
        self._rows: list[list[tuple[str, str]]] = []
        self._ticks: dict[int, str] = {}
        self._frame = Frame(0, 1, 0, 1)
        self._gutter = 0

    def show(self, title: str, lines: list[Line], label: Callable[[float], str], waiting: str) -> None:
        """Draw these lines from now on.

        ``label`` formats an x, and ``waiting`` is shown while there is nothing to draw.
        """
        self._title, self._lines, self._label, self._waiting = title, lines, label, waiting
        self._drawn_for = None
        self.refresh()

    def mark(self, cursor: float | None) -> None:
        """Put the cursor at an x."""
        if cursor != self._cursor:
            self._cursor = cursor
            self.refresh()

    @property
    def span(self) -> tuple[float, float] | None:
        """Return the first and the last x, or None while there is nothing to draw."""
        xs = [x for line in self._lines for x in (line.xs[0], line.xs[-1])]
        values = any(math.isfinite(y) for line in self._lines for y in line.ys)
        return (min(xs), max(xs)) if xs and values else None

    @property
    def columns(self) -> int:
        """Return the width of the plot in characters, without the axis at its left."""
        return max(1, self.size.width - self._gutter)

    def _draw(self) -> None:
        size = (self.size.width, self.size.height)
        if self._drawn_for == size or self.span is None:
            return
        self._drawn_for = size
        height = max(1, self.size.height - 2)
        finite = [y for line in self._lines for ys in (line.ys, *line.edges) for y in ys if math.isfinite(y)]
        values = ticks(min(finite), max(finite), max(2, min(6, (height + 1) // 2)))
        labels = tick_labels(values)
        first, last = self.span
        self._frame = Frame(first, last if last > first else first + 1, values[0], values[-1])
        self._ticks = {place(value, height, self._frame): label for value, label in zip(values, labels, strict=True)}
        self._gutter = max(map(len, labels)) + 2
        self._rows = overlay(self._lines, self.columns, height, self._frame)

    def render_line(self, y: int) -> Strip:
        ground, axis = self.rich_style, self.get_component_rich_style("overlay--axis")
        self._draw()
        if y == 0:
            return strip([(self._title, self.get_component_rich_style("overlay--title"))], self.size.width, ground)
        if self.span is None:
            text = f"  {self._waiting}" if y == self.size.height // 2 else ""
            return strip([(text, axis)], self.size.width, ground)
        if y > len(self._rows):
            return strip([(self._axis(), axis)], self.size.width, ground)
        return strip(self._pieces(y - 1), self.size.width, ground)

    def _pieces(self, row: int) -> list[Piece]:
        cells = self._rows[row]
        column = self._column(self._cursor)
        if column is not None and cells[column][0] == " ":
            cells = [*cells[:column], ("│", CURSOR), *cells[column + 1 :]]
        label = self._ticks.get(row, "")
        gutter = f"{label:>{self._gutter - 2}} {'┤' if label else '│'}"
        return [(gutter, self._style(AXIS)), *((text, self._style(name)) for text, name in runs(cells))]

    def _style(self, name: str) -> Style:
        if name in (AXIS, CURSOR):
            return self.get_component_rich_style("overlay--cursor" if name else "overlay--axis")
        return self.get_component_rich_style(f"run--{name[0].lower()}") + Style(bold=len(name) > 1)

    def _column(self, x: float | None) -> int | None:
        """Return the column of characters that contains an x, or None if it is outside the plot."""
        low, high = self._frame.x_low, self._frame.x_high
        if x is None or not low <= x <= high:
            return None
        return min(self.columns - 1, round((x - low) / (high - low) * (self.columns * 2 - 1)) // 2)

    def _axis(self) -> str:
        """Return the axis line: the x of the cursor, the first, the last and the middle one, as far as they fit."""
        line = [" "] * self.columns
        low, high = self._frame.x_low, self._frame.x_high
        marks = [(self._cursor, "▲")] if self._cursor is not None else []
        for x, mark in [*marks, (low, ""), (high, ""), ((low + high) / 2, "")]:
            column = self._column(x)
            text = f"{mark}{self._label(x)}" if x is not None else ""
            if column is None or len(text) > len(line):
                continue
            start = min(column, len(line) - len(text))
            if not "".join(line[max(0, start - 1) : start + len(text) + 1]).strip():
                line[start : start + len(text)] = text
        return " " * self._gutter + "".join(line)

    def on_click(self, event: events.Click) -> None:
        if self.span is None or event.x < self._gutter or self.columns < 2:
            return
        share = (event.x - self._gutter) / (self.columns - 1)
        self.post_message(self.Picked(self._frame.x_low + share * (self._frame.x_high - self._frame.x_low)))


def overlay(lines: Sequence[Line], width: int, height: int, frame: Frame) -> list[list[tuple[str, str]]]:
    """Return rows of characters, each with the name of what it belongs to.

    The name is "A" for a part of run A's line, "A*" for the letter written on it, and "" for a blank.
    """
    paths = {line.letter: resampled(line, width * 2, frame) for line in lines}
    edges = [Series(line.letter, line.xs, edge, "dots") for line in lines for edge in line.edges]
    series = [_dashed(letter, path, frame) for letter, path in paths.items()] + edges
    drawn = draw(series[::-1], width, height, frame)  # reversed, so that the first run is on top
    rows = [list(zip(row.text, row.names, strict=True)) for row in drawn]
    for number, (letter, path) in enumerate(paths.items()):
        known = [x for x, y in enumerate(path) if math.isfinite(y)]
        if not known:
            continue
        inside = known[0] + round((known[-1] - known[0]) * (number + 1) / (len(paths) + 1))
        for x in (known[-1], inside):
            _write_letter(rows, letter, path, x, frame)
    return rows


def _write_letter(rows: list[list[tuple[str, str]]], letter: str, path: Sequence[float], at: int, frame: Frame) -> None:
    """Write the letter on its line, in the first column at or left of ``at`` that has no other letter next to it."""
    for x in range(min(at, len(path) - 1), -1, -2):
        if not math.isfinite(path[x]):
            continue
        row, column = place(path[x], len(rows) * 4, frame) // 4, x // 2
        if not any(len(name) > 1 for _, name in rows[row][max(0, column - 1) : column + 2]):
            rows[row][column] = (letter, f"{letter}*")
            return


def resampled(line: Line, count: int, frame: Frame) -> list[float]:
    """Return a value for each of ``count`` columns of dots.

    This is the mean of the column's values, or a linear interpolation between means; NaN outside the line and in gaps.
    """
    binned = columns(line.xs, line.ys, count, frame)
    values = [math.nan] * count
    before: int | None = None
    for x, inside in enumerate(binned):
        if inside is None:
            continue
        values[x] = sum(inside) / len(inside) if inside else math.nan
        if before is not None:
            for between in range(before + 1, x):
                values[between] = values[before] + (values[x] - values[before]) * (between - before) / (x - before)
        before = x
    return values


def _dashed(letter: str, path: Sequence[float], frame: Frame) -> Series:
    """Return the run's dashed line: values in the gaps are NaN, because a braille line is broken at missing values."""
    count = len(path)
    span = frame.x_high - frame.x_low
    xs = [frame.x_low + span * column / max(1, count - 1) for column in range(count)]
    ys = [y if shown else math.nan for y, shown in zip(path, _pattern(letter, count), strict=True)]
    return Series(letter, xs, ys, "line")


def _pattern(letter: str, count: int) -> list[bool]:
    lengths = DASHES[letter]
    ends = list(accumulate(lengths))
    period = [sum(x >= end for end in ends) % 2 == 0 for x in range(ends[-1])]
    return list(islice(cycle(period), count))


def sample(letter: str) -> str:
    """Return a short piece of the run's line for a legend."""
    frame = Frame(0, SAMPLE * 2 - 1, 0, 1)
    return draw([_dashed(letter, [0.5] * (SAMPLE * 2), frame)], SAMPLE, 1, frame)[0].text
