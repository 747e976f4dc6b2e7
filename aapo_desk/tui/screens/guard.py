"""The base class of all screens, and the cover shown when the terminal is too small."""

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
    """A cover over the whole screen, shown while the terminal is smaller than ``SMALLEST`` (columns, rows)."""

    def on_resize(self) -> None:
        size = self.app.size
        width, height = SMALLEST
        self.update(
            Content(f"This terminal has {size.width} x {size.height} characters; {width} x {height} are needed.")
        )


class DeskScreen(Screen[Result], Generic[Result]):
    """A screen of the desk. ``DeskApp`` defines the CSS classes it gets for each terminal size."""

    ACTING: ClassVar[frozenset[str]] = frozenset()
    """The actions that start or change something, or control a trainer. Read-only mode does not offer them."""

    @property
    def desk(self) -> DeskApp:
        return cast("DeskApp", self.app)

    def on_unmount(self) -> None:
        forget_closed(self.app)  # text areas watch the app's theme and would be kept in memory

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in self.ACTING and self.desk.read_only:
            return False
        return super().check_action(action, parameters)

    def copyable(self) -> str:
        """Return the text to copy if nothing is selected: the row or option under the cursor, else an empty string."""
        match self.focused:
            case DataTable() as table if table.row_count:
                return "\t".join(str(cell) for cell in table.get_row_at(table.cursor_row))
            case OptionList(highlighted=int(place)) as options:
                return str(options.get_option_at_index(place).prompt)
        return ""

    def unsaved(self) -> str:
        """Return a sentence that says what leaving would lose; empty if nothing would be lost."""
        return ""

    def farewell(self) -> str:
        """Return the line printed when the user quits from this screen; empty for none."""
        return ""
