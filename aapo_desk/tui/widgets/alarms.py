"""Active alarms: the worst one in a line under the monitor's header, and a text with all of them and what to try."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from textual import events
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from aapo_desk.health import Alarm
from aapo_desk.tui.text import one_line

MARKS = {"critical": ("!!", "$text-error"), "warning": ("!", "$text-warning"), "note": ("i", "$foreground")}
HINT = "a: what to try"


class AlarmStrip(Static):
    """A line that is shown only while an alarm is active. A click asks for the list of all active alarms."""

    DEFAULT_CSS = """
    AlarmStrip {
        display: none;
        height: 1;
        background: $surface;
        pointer: pointer;
        text-wrap: nowrap;
    }
    AlarmStrip.-standing {
        display: block;
    }
    """

    class Clicked(Message):
        """The user wants to see all active alarms in full."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, markup=False)
        self._alarms: Sequence[Alarm] = ()

    def show(self, alarms: Sequence[Alarm]) -> None:
        """Show the active alarms, given with the worst first; hide the line if there is none."""
        self._alarms = alarms
        self.set_class(bool(alarms), "-standing")
        self._render_line()

    def on_resize(self) -> None:
        self._render_line()

    def _render_line(self) -> None:
        if self._alarms and self.content_size.width:
            self.update(strip_text(self._alarms, self.content_size.width))

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.post_message(self.Clicked())


def strip_text(alarms: Sequence[Alarm], width: int) -> Content:
    """Return the alarm line, its middle cut to fit ``width``.

    Example: ``!! critical: no reward, since step 5 · 2 more      a: what to try``.
    """
    worst, others = alarms[0], len(alarms) - 1
    mark, style = MARKS[worst.severity]
    head = f"{mark} {worst.severity}: "
    middle = f"{one_line(worst.title)}, since step {worst.since}" + (f" · {others} more" if others else "")
    room = max(0, width - len(head) - len(HINT) - 2)
    if cell_len(middle) > room:
        middle = f"{set_cell_size(middle, max(0, room - 1)).rstrip()}…"
    return Content.assemble((head, f"bold {style}"), set_cell_size(middle, room), "  ", (HINT, "bold"))


def alarms_text(alarms: Sequence[Alarm]) -> Content:
    """Return a paragraph for each alarm: severity, first step, what is wrong, what to try."""
    if not alarms:
        return Content("no active alarms")
    return Content("\n\n").join(_alarm_text(alarm) for alarm in alarms)


def _alarm_text(alarm: Alarm) -> Content:
    mark, style = MARKS[alarm.severity]
    title = f"{mark} {alarm.severity}: {one_line(alarm.title)}"
    return Content.assemble(
        (title, f"bold {style}"),
        (f"  since step {alarm.since}\n", "$foreground 70%"),
        f"{one_line(alarm.message)}\n",
        ("Try: ", "bold"),
        one_line(alarm.advice),
    )
