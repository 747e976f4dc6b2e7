"""A screen that says so when the terminal is too small for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, cast

from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

if TYPE_CHECKING:
    from aapo_desk.tui.app import DeskApp

Result = TypeVar("Result")

SMALLEST = (60, 20)
WIDE = 120
TALL = 32


class TooSmall(Static):
    """Covers everything where the terminal is smaller than ``SMALLEST``."""

    def on_resize(self) -> None:
        size = self.app.size
        width, height = SMALLEST
        self.update(
            Content(f"This terminal has {size.width} x {size.height} characters; {width} x {height} are needed.")
        )


class DeskScreen(Screen[Result], Generic[Result]):
    """A screen of the desk. See ``DeskApp`` for the classes it gets at which size."""

    @property
    def desk(self) -> DeskApp:
        return cast("DeskApp", self.app)

    def farewell(self) -> str:
        """What to tell someone who leaves the desk from here."""
        return ""
