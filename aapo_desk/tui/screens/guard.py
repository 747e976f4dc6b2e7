"""A screen that says so when the terminal is too small for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, cast

from textual.content import Content
from textual.screen import Screen
from textual.widgets import DataTable, OptionList, Static

from aapo_desk.tui.watchers import forget_closed

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

    ACTING: ClassVar[frozenset[str]] = frozenset()
    """The actions that start, ask or change something: not offered where the desk is read-only."""

    @property
    def desk(self) -> DeskApp:
        return cast("DeskApp", self.app)

    def on_unmount(self) -> None:
        forget_closed(self.app)  # text areas watch the theme

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in self.ACTING and self.desk.read_only:
            return False
        return super().check_action(action, parameters)

    def copyable(self) -> str:
        """What there is to copy where no text is selected: the line under the cursor."""
        match self.focused:
            case DataTable() as table if table.row_count:
                return "\t".join(str(cell) for cell in table.get_row_at(table.cursor_row))
            case OptionList(highlighted=int(place)) as options:
                return str(options.get_option_at_index(place).prompt)
        return ""

    def unsaved(self) -> str:
        """What leaving from here would lose, as a sentence; empty where it would lose nothing."""
        return ""

    def farewell(self) -> str:
        """What to tell someone who leaves the desk from here."""
        return ""
