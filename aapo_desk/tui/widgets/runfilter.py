"""The line above the runs: the filter, how many runs match it, and what the signs mean."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Input, Static

from aapo_desk.tui.widgets.runtable import MARKED, PINNED


class FilterInput(Input):
    """An input that filters the runs as the user types."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,down", "screen.to_runs", "To the runs", key_display="enter", tooltip="Return to the runs"),
    ]


class RunFilter(Horizontal):
    """The title of the list of runs, and the filter while it is open."""

    def compose(self) -> ComposeResult:
        yield Static("runs", id="runs-title", classes="list-title", markup=False)
        yield FilterInput(placeholder="name, model or state", id="filter", compact=True)
        yield Static(id="runs-note", markup=False)

    def on_mount(self) -> None:
        self.input.display = False
        self.input.cursor_blink = False  # an idle screen should draw nothing

    @property
    def input(self) -> FilterInput:
        return self.query_one(FilterInput)

    @property
    def text(self) -> str:
        """Return the text of the filter; "" if all runs are listed."""
        return self.input.value

    def open(self) -> None:
        self.input.display = True
        self.screen.set_focus(self.input)  # at once, so that the next key is typed into the field

    def close(self) -> None:
        """Close the filter and list all runs again."""
        self.input.value = ""
        self.input.display = False

    def describe(self, listed: int, total: int, marked: int, pinned: int) -> None:
        """Show how many runs are listed, marked and pinned."""
        notes = [f"{listed} of {total}, esc shows all"] if self.text.strip() else []
        notes += [f"{MARKED} {marked} marked"] if marked else []
        notes += [f"{PINNED} pinned"] if pinned else []
        put(self.query_one("#runs-note", Static), " · ".join(notes))


def put(widget: Static, text: Content | str) -> None:
    """Show a text in a widget, unless it shows it already: the screen's new layout would be the largest cost."""
    if str(widget.content) != str(text):
        widget.update(text)
