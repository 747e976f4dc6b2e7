"""The base class of plots over steps: a title, an axis of steps below, a cursor, and clicks that choose a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip

from aapo_desk.tui.labels import clipped
from aapo_desk.tui.widgets.cells import Piece, runs, strip
from aapo_desk.tui.widgets.drawn import Drawn

FEWEST_STEPS = 10  # the axis spans at least this many steps, so that the first steps do not jump around
NOTED_HEIGHT = 14  # a plot of at least this height has room for its note


@dataclass(frozen=True)
class Legend:
    """The legend of a series: its text and a ``mark`` that shows its line, by shape as well as by colour.

    ``short`` replaces ``text`` if all texts together are too long.
    """

    name: str
    mark: str
    text: str
    short: str = ""


@dataclass(frozen=True)
class Heading:
    """The texts around a plot.

    ``chosen`` marks the chosen chart (None: it is the only visible one), ``place`` is its number among all charts,
    ``drawn`` how it is drawn and ``note`` how to read it. ``insists`` shows the note however small the chart is.
    """

    chosen: bool | None = None
    place: str = ""
    drawn: str = ""
    note: str = ""
    insists: bool = False


class Plot(Drawn):
    """A plot over steps: title and legend in its first line, the axis in its last line, and the plot between them.

    If there is room, a note is above the plot. A subclass draws the plot and sets ``_first`` and ``_last``, the steps
    that the axis spans.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "chart--title",
        "chart--axis",
        "chart--raw",
        "chart--policy",
        "chart--reference",
        "chart--third",
        "chart--cursor",
    }
    STYLE_NAMES: ClassVar[dict[str, str]] = {
        "": "chart--axis",
        "cursor": "chart--cursor",
        "lead": "chart--policy",
        "second": "chart--reference",
        "third": "chart--third",
        "raw": "chart--raw",
    }
    ALLOW_SELECT = False

    class Picked(Message):
        """The user clicked on a step of a plot."""

        def __init__(self, plot: Plot, step: int) -> None:
            super().__init__()
            self.plot = plot
            self.step = step

        @property
        def control(self) -> Plot:
            return self.plot

    def __init__(self, title: str, waiting: str, *, id: str) -> None:
        super().__init__(id=id)
        self._title = title
        self._waiting = waiting
        self._legend: list[Legend] = []
        self._heading = Heading()
        self._cursor: int | None = None
        self._cursor_line = False
        self._first, self._last = 1, FEWEST_STEPS

    def head(self, heading: Heading) -> None:
        """Set the texts around the plot."""
        if heading != self._heading:
            self._heading = heading
            self.refresh()

    def mark(self, cursor: int | None, legend: list[Legend], line: bool) -> None:
        """Put the cursor on a step and show the legend with the values at that step.

        ``line`` draws the cursor as a vertical line through the plot.
        """
        if (cursor, legend, line) != (self._cursor, self._legend, self._cursor_line):
            self._cursor, self._legend, self._cursor_line = cursor, legend, line
            self.refresh()

    def wait(self, reason: str) -> None:
        """Set the text that is shown while there is nothing to draw."""
        if reason != self._waiting:
            self._waiting = reason
            self.refresh()

    @property
    def empty(self) -> bool:
        raise NotImplementedError

    def _draw(self) -> None:
        """Prepare the rows of the plot. This is called before each line and must return at once if nothing changed."""
        raise NotImplementedError

    def _cells(self, row: int) -> list[tuple[str, str]]:
        """Return a row of the plot: characters, each with the name in ``STYLE_NAMES`` of its style."""
        raise NotImplementedError

    def _label_at(self, row: int) -> tuple[str, str]:
        """Return the tick label of this row, "" if it has none, and the character of the axis beside it."""
        raise NotImplementedError

    @property
    def _labels(self) -> Sequence[str]:
        raise NotImplementedError

    @property
    def _note_height(self) -> int:
        heading = self._heading
        return int(bool(heading.note) and (heading.insists or self.size.height >= NOTED_HEIGHT))

    @property
    def _plot_height(self) -> int:
        return max(1, self.size.height - 2 - self._note_height)

    @property
    def _plot_width(self) -> int:
        return max(1, self.size.width - self._gutter)

    @property
    def _gutter(self) -> int:
        return max(len("step"), *(len(label) for label in self._labels), 0) + 2

    def render_line(self, y: int) -> Strip:
        ground, width = self.ground, self.size.width
        if y == 0:
            return strip(self._title_pieces(), width, ground)
        if self.empty:
            text = clipped(f"  {self._waiting}", width) if y == self.size.height // 2 else ""
            return strip([(text, self._style(""))], width, ground)
        if y <= self._note_height:
            return strip([(clipped(f" {self._heading.note}", width), self._style(""))], width, ground)
        self._draw()
        row = y - 1 - self._note_height
        if row < self._plot_height:
            return strip(self._plot_pieces(row), width, ground)
        return strip([(self._axis_text(), self._style(""))], width, ground)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(self.STYLE_NAMES[name])

    def _title_pieces(self) -> list[Piece]:
        """Return the title, the legend and, at the right end, the chart's number."""
        heading, title = self._heading, self.get_component_rich_style("chart--title")
        mark = "" if heading.chosen is None else "▸" if heading.chosen else " "
        pieces = [(mark, self._style("cursor")), (self._title, title)]
        if heading.drawn:
            pieces.append((f"  {heading.drawn}", self._style("")))
        room = self.size.width - sum(cell_len(text) for text, _ in pieces) - cell_len(heading.place) - 1
        pieces += self._legend_pieces(room)
        if heading.place:
            left = self.size.width - sum(cell_len(text) for text, _ in pieces) - cell_len(heading.place)
            pieces.append((" " * max(1, left) + heading.place, self._style("")))
        return pieces

    def _legend_pieces(self, room: int) -> list[Piece]:
        """Return as much of the legend as fits: the long texts, the short ones, or only the first entries."""
        texts = [item.text for item in self._legend]
        if _legend_width(self._legend, texts) > room:
            texts = [item.short or item.text for item in self._legend]
        while texts and _legend_width(self._legend, texts) > room:
            texts.pop()
        pieces: list[Piece] = []
        for place, (item, text) in enumerate(zip(self._legend, texts, strict=False)):
            pieces.append((f"  {item.mark} ", self._style(item.name)))
            strong = self.get_component_rich_style("chart--title")
            pieces.append((text, self._style("") if place else strong))
        return pieces

    def _plot_pieces(self, row: int) -> list[Piece]:
        label, joint = self._label_at(row)
        cells = self._cells(row)
        column = self._column(self._cursor) if self._cursor_line else None
        if column is not None and column < len(cells) and cells[column][0] == " ":
            cells[column] = ("│", "cursor")
        gutter = [(f"{label:>{self._gutter - 2}} {joint}", self._style(""))]
        return gutter + [(text, self._style(name)) for text, name in runs(cells)]

    def _column(self, step: int | None) -> int | None:
        """Return the column of characters that contains a step, or None if it is outside the plot."""
        if step is None or not self._first <= step <= self._last:
            return None
        width = self._plot_width
        span = self._last - self._first
        dots = round((step - self._first) / span * (width * 2 - 1)) if span else 0
        return min(width - 1, dots // 2)

    def _axis_text(self) -> str:
        """Return the line of steps below the plot: the cursor's, the first, the last and the middle one if they fit."""
        line = [" "] * self._plot_width
        first, last = self._first, self._last
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
        width = self._plot_width
        if self.empty or event.x < self._gutter or width < 2:
            return
        share = (event.x - self._gutter) / (width - 1)
        self.post_message(self.Picked(self, round(self._first + share * (self._last - self._first))))


def _legend_width(legend: Sequence[Legend], texts: Sequence[str]) -> int:
    return sum(cell_len(item.mark) + cell_len(text) + 3 for item, text in zip(legend, texts, strict=False))
