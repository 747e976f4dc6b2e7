"""The scrubber: a line that shows the selected step and lets the user select another."""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from textual import events
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip

from aapo_desk.tui.widgets.cells import Piece, strip
from aapo_desk.tui.widgets.drawn import Drawn

TRACK, DONE, KNOB = "─", "━", "●"


class Scrubber(Drawn):
    """A track of steps: a click or drag selects a step, a click on the word at its end follows the run again."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"scrubber--label", "scrubber--track", "scrubber--knob", "scrubber--live"}
    ALLOW_SELECT = False

    first: reactive[int] = reactive(0)
    last: reactive[int] = reactive(0)
    step: reactive[int] = reactive(0)
    following: reactive[bool] = reactive(True)
    live: reactive[bool] = reactive(True)

    class Moved(Message):
        """The user selected a step on the track."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    class Follow(Message):
        """The user wants to follow the newest step."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._dragging = False

    @property
    def _label(self) -> str:
        digits = len(str(self.last))
        return f"step {self.step:>{digits}} of {self.last} ◀" if self.last else "no steps yet "

    @property
    def _end(self) -> str:
        word = "live" if self.live else "last"
        return f"▶ {word}     " if self.following else f"▶ {word}: end"

    @property
    def _width(self) -> int:
        return max(1, self.size.width - len(self._label) - len(self._end) - 2)

    def render_line(self, y: int) -> Strip:
        style, width = self._style, self._width
        pieces: list[Piece] = [(self._label, style("label")), (" ", style("track"))]
        if self.last:
            knob = place(self.step, self.first, self.last, width)
            pieces += [
                (DONE * knob, style("label")),
                (KNOB, style("knob")),
                (TRACK * (width - knob - 1), style("track")),
            ]
        else:
            pieces.append((TRACK * width, style("track")))
        pieces += [(" ", style("track")), (self._end, style("live" if self.following else "label"))]
        return strip(pieces, self.size.width, self.ground)

    def _style(self, part: str) -> Style:
        return self.get_component_rich_style(f"scrubber--{part}")

    def _choose(self, x: int) -> None:
        column = min(self._width - 1, max(0, x - len(self._label) - 1))
        self.post_message(self.Moved(step_at(column, self.first, self.last, self._width)))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if not self.last:
            return
        event.stop()
        if event.x > len(self._label) + self._width:
            self.post_message(self.Follow())
            return
        self._dragging = True
        self.capture_mouse()
        self._choose(event.x)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._dragging:
            self._choose(event.x)

    def on_mouse_up(self) -> None:
        self._dragging = False
        self.release_mouse()


def place(step: int, first: int, last: int, width: int) -> int:
    """Return the column of a step on a track of ``width`` columns."""
    if last <= first:
        return width - 1
    return min(width - 1, max(0, round((step - first) / (last - first) * (width - 1))))


def step_at(column: int, first: int, last: int, width: int) -> int:
    """Return the step at a column of a track of ``width`` columns."""
    if width < 2 or last <= first:
        return last
    return first + round(column / (width - 1) * (last - first))
