"""The line chart: braille lines with axes, a legend and a mark at the step being looked at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from aapo_desk.tui.widgets.braille import Frame, Row, Series, draw, tick_labels, ticks
from aapo_desk.tui.widgets.cells import Piece, runs, strip

FEWEST_STEPS = 10  # the axis is at least this long, so that the first steps do not jump about


@dataclass(frozen=True)
class Legend:
    """What a series is called and a sample of how it is drawn: told by shape as well as by colour."""

    name: str
    mark: str
    text: str


class LineChart(Widget):
    """Series over steps. Line 0 holds title and legend, the last line the steps."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "chart--title",
        "chart--axis",
        "chart--raw",
        "chart--policy",
        "chart--reference",
        "chart--cursor",
    }
    STYLE_NAMES: ClassVar[dict[str, str]] = {
        "": "chart--axis",
        "cursor": "chart--cursor",
        "reward": "chart--policy",
        "reference_reward": "chart--reference",
        "reward_raw": "chart--raw",
    }
    ALLOW_SELECT = False

    class Picked(Message):
        """A step was clicked."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    def __init__(self, title: str, waiting: str, *, id: str) -> None:
        super().__init__(id=id)
        self._title = title
        self._waiting = waiting
        self._series: list[Series] = []
        self._legend: list[Legend] = []
        self._cursor: int | None = None
        self._cursor_line = False
        self._rows: list[Row] = []
        self._labels: list[str] = []
        self._drawn_for: tuple[int, int] | None = None
        self._frame = Frame(1, FEWEST_STEPS, 0, 1)

    def show(self, series: list[Series], legend: list[Legend]) -> None:
        """Draw these from now on."""
        self._series, self._legend = series, legend
        self._drawn_for = None
        self.refresh()

    def mark(self, cursor: int | None, legend: list[Legend], line: bool) -> None:
        """Put the cursor on a step, with the legend's numbers there; ``line``: draw it all the way up."""
        if (cursor, legend, line) != (self._cursor, self._legend, self._cursor_line):
            self._cursor, self._legend, self._cursor_line = cursor, legend, line
            self.refresh()

    def wait(self, reason: str) -> None:
        """What to say while there is nothing to draw."""
        if reason != self._waiting:
            self._waiting = reason
            self.refresh()

    @property
    def empty(self) -> bool:
        return not any(math.isfinite(y) for item in self._series for y in item.ys)

    @property
    def _plot_height(self) -> int:
        return max(1, self.size.height - 2)

    def _draw(self) -> None:
        size = (self.size.width, self.size.height)
        if self._drawn_for == size:
            return
        self._drawn_for = size
        low, high = value_range(item.ys for item in self._series)
        values = ticks(low, high, max(2, min(6, (self._plot_height + 1) // 2)))
        self._labels = tick_labels(values)
        steps = [item.xs for item in self._series if len(item.xs)]
        first, last = (steps[0][0], steps[0][-1]) if steps else (1, 1)
        self._frame = Frame(first, max(last, first + FEWEST_STEPS - 1), values[0], values[-1])
        self._ticks = values
        width = max(1, self.size.width - self._gutter)
        self._rows = draw(self._series, width, self._plot_height, self._frame)

    @property
    def _gutter(self) -> int:
        return max(len("step"), *(len(label) for label in self._labels)) + 2

    def render_line(self, y: int) -> Strip:
        ground = self.rich_style
        style = self._style
        width = self.size.width
        if y == 0:
            return strip(self._title_pieces(), width, ground)
        if self.empty:
            middle = self.size.height // 2
            text = f"  {self._waiting}" if y == middle else ""
            return strip([(text, style("chart--axis"))], width, ground)
        self._draw()
        if y <= self._plot_height:
            return strip(self._plot_pieces(y - 1), width, ground)
        return strip([(self._axis_text(), style("chart--axis"))], width, ground)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(name)

    def _title_pieces(self) -> list[Piece]:
        pieces = [(self._title, self._style("chart--title"))]
        for item in self._legend:
            pieces.append((f"  {item.mark} ", self._style(self.STYLE_NAMES[item.name])))
            pieces.append((item.text, self._style("chart--title" if item.name == "reward" else "chart--axis")))
        return pieces

    def _plot_pieces(self, row: int) -> list[Piece]:
        label, joint = self._label_at(row)
        cells = list(zip(self._rows[row].text, self._rows[row].names, strict=True))
        column = self._column(self._cursor) if self._cursor_line else None
        if column is not None and cells[column][0] == " ":
            cells[column] = ("│", "cursor")
        axis = self._style("chart--axis")
        gutter = [(f"{label:>{self._gutter - 2}} {joint}", axis)]
        return gutter + [(text, self._style(self.STYLE_NAMES[name])) for text, name in runs(cells)]

    def _label_at(self, row: int) -> tuple[str, str]:
        """The tick in this row of characters, if there is one, and the axis beside it."""
        frame, height = self._frame, self._plot_height
        for value, label in zip(self._ticks, self._labels, strict=True):
            share = (frame.y_high - value) / (frame.y_high - frame.y_low)
            if round(share * (height - 1)) == row:
                return label, "┤"
        return "", "│"

    def _column(self, step: int | None) -> int | None:
        """The column of characters that a step lies in."""
        width = self.size.width - self._gutter
        span = self._frame.x_high - self._frame.x_low
        if step is None or width < 1 or not self._frame.x_low <= step <= self._frame.x_high:
            return None
        dots = round((step - self._frame.x_low) / span * (width * 2 - 1)) if span else 0
        return min(width - 1, dots // 2)

    def _axis_text(self) -> str:
        """The steps below the plot: first, last and, where there is room, one between; the cursor's among them."""
        width = self.size.width - self._gutter
        line = [" "] * max(0, width)
        first, last = int(self._frame.x_low), int(self._frame.x_high)
        marks = [(self._cursor, f"▲{self._cursor}")] if self._cursor is not None else []
        marks += [(step, str(step)) for step in (first, last, (first + last) // 2)]
        for step, text in marks:
            column = self._column(step)
            if column is None or len(text) > len(line):
                continue
            start = min(column, len(line) - len(text))
            around = line[max(0, start - 1) : start + len(text) + 1]
            if all(character == " " for character in around):
                line[start : start + len(text)] = text
        return f"{'step':>{self._gutter - 2}}  " + "".join(line)

    def on_click(self, event: events.Click) -> None:
        width = self.size.width - self._gutter
        if self.empty or event.x < self._gutter or width < 2:
            return
        share = (event.x - self._gutter) / (width - 1)
        step = round(self._frame.x_low + share * (self._frame.x_high - self._frame.x_low))
        self.post_message(self.Picked(step))


def value_range(columns: Iterable[Sequence[float]]) -> tuple[float, float]:
    """The lowest and highest value to be drawn."""
    finite = [y for column in columns for y in column if math.isfinite(y)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    return (0.0, 1.0) if low == high and 0 <= low <= 1 else (low, high)  # a share that does not move yet
