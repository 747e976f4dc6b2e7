"""The line that says which runs are listed: what they are filtered by, how many match, what the signs mean."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Input, Static

from aapo_desk.tui.widgets.runtable import MARKED, PINNED


class FilterInput(Input):
    """Filters as one types."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,down", "screen.to_runs", "To the runs", key_display="enter", tooltip="Back to the runs"),
    ]


class RunFilter(Horizontal):
    """The runs' title, and the filter while there is one."""

    def compose(self) -> ComposeResult:
        yield Static("runs", id="runs-title", classes="list-title", markup=False)
        yield FilterInput(placeholder="name, model or state", id="filter", compact=True)
        yield Static(id="runs-note", markup=False)

    def on_mount(self) -> None:
        self.input.display = False
        self.input.cursor_blink = False  # a screen at rest draws nothing

    @property
    def input(self) -> FilterInput:
        return self.query_one(FilterInput)

    @property
    def text(self) -> str:
        """What is filtered by; "" where all runs are listed."""
        return self.input.value

    def open(self) -> None:
        self.input.display = True
        self.screen.set_focus(self.input)  # at once: what is typed right behind is no key

    def close(self) -> None:
        """List all runs again."""
        self.input.value = ""
        self.input.display = False

    def describe(self, listed: int, total: int, marked: int, pinned: int) -> None:
        """Say how many of the runs are listed, marked and pinned."""
        notes = [f"{listed} of {total}, esc lists all"] if self.text.strip() else []
        notes += [f"{MARKED} {marked} marked"] if marked else []
        notes += [f"{PINNED} pinned"] if pinned else []
        put(self.query_one("#runs-note", Static), " · ".join(notes))


def put(widget: Static, text: Content | str) -> None:
    """Have it show this text. What it shows already is left alone: to lay out the screen again costs the most."""
    if str(widget.content) != str(text):
        widget.update(text)
