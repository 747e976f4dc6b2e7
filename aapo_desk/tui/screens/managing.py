"""The dialogs that rename and delete a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal
from textual.content import Content
from textual.widgets import Button, Input, Static

from aapo_desk.tui.listing import RunRow
from aapo_desk.tui.screens.dialogs import Dialog, Question
from aapo_desk.tui.text import one_line, visible


class DeleteQuestion(Question):
    """The question asked before a run is deleted. The default answer is no."""

    def __init__(self, row: RunRow) -> None:
        text = (
            f"This deletes its {row.step} steps, checkpoints and samples, and everything exported to "
            f"its folder. It cannot be undone.\n\n{visible(str(row.run.path))}"
        )
        super().__init__(f"Delete {one_line(row.name)}?", Content(text), "y  Delete", "n  Keep", default=False)


class RenameDialog(Dialog[str | None]):
    """A dialog that asks for a run's new name. It returns None if the name stays.

    ``refuse`` returns what is wrong with a name, or "" if nothing is.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel")]

    def __init__(self, name: str, refuse: Callable[[str], str]) -> None:
        super().__init__()
        self._name_before = name
        self._refuse = refuse

    def compose(self) -> ComposeResult:
        with Container(id="dialog"):
            yield Static(Content.styled(f"Rename {one_line(self._name_before)}", "bold"), id="dialog-title")
            yield Input(self._name_before, id="new-name", compact=True, select_on_focus=False)
            yield Static(id="name-problem", markup=False)
            with Horizontal(id="dialog-buttons"):
                yield Button(Content("Enter  Rename"), id="yes", compact=True)
                yield Button(Content("esc  Keep the name"), id="no", compact=True)

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False
        self.query_one(Input).focus()

    @on(Input.Changed)
    def _check(self) -> None:
        problem = self._refuse(self._wanted)
        self.query_one("#name-problem", Static).update(f"✗ {problem}" if problem else "")
        self.query_one("#yes", Button).disabled = bool(problem)

    @property
    def _wanted(self) -> str:
        return self.query_one(Input).value.strip()

    @on(Input.Submitted)
    @on(Button.Pressed, "#yes")
    def _answer(self) -> None:
        self._check()  # another run may have taken the name since the last check
        if not self.query_one("#yes", Button).disabled:
            self.dismiss(self._wanted)

    @on(Button.Pressed, "#no")
    def action_cancel(self) -> None:
        self.dismiss(None)
