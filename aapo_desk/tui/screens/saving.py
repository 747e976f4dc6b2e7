"""The dialog that saves the form's configuration as a preset of the user."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal
from textual.content import Content
from textual.widgets import Button, Input, Static

from aapo_desk import presets
from aapo_desk.config import ConfigError, RunConfig
from aapo_desk.tui.screens.dialogs import Dialog
from aapo_desk.tui.text import one_line, visible


class SaveDialog(Dialog[str | None]):
    """A dialog that asks for a name and saves the preset. It warns before the preset replaces or hides another.

    Returns the name, or None if cancelled.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel")]

    def __init__(self, config: RunConfig, name: str, notes: list[str]) -> None:
        super().__init__()
        self._config = config
        self._suggested = name
        self._notes = notes

    def compose(self) -> ComposeResult:
        with Container(id="dialog"):
            yield Static(Content.styled("Save as a preset", "bold"), id="dialog-title")
            yield Static(f"Your presets are in {visible(str(presets.own_folder()))}", markup=False)
            yield Input(self._suggested, id="preset-name", compact=True)
            yield Static(id="preset-note", markup=False)
            with Horizontal(id="dialog-buttons"):
                yield Button(Content("Enter  Save"), id="yes", compact=True)
                yield Button(Content("esc  Cancel"), id="no", compact=True)

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    @on(Input.Changed)
    def _look_at_name(self, event: Input.Changed) -> None:
        try:
            presets.check_name(event.value.strip())
        except ConfigError as error:
            self._refuse(error)
            return
        self.query_one("#yes", Button).disabled = False
        self.query_one("#preset-note", Static).update(_consequence(event.value.strip()))

    @on(Input.Submitted)
    @on(Button.Pressed, "#yes")
    def _save(self) -> None:
        name = self.query_one(Input).value.strip()
        try:
            presets.save_preset(name, self._config, self._notes)
        except ConfigError as error:
            self._refuse(error)
        else:
            self.dismiss(name)

    def _refuse(self, error: ConfigError) -> None:
        self.query_one("#yes", Button).disabled = True
        note = Content.styled(f"✗ {one_line(error.problems[0].message)}", "$text-error")
        self.query_one("#preset-note", Static).update(note)

    @on(Button.Pressed, "#no")
    def action_cancel(self) -> None:
        self.dismiss(None)


def _consequence(name: str) -> str:
    there = presets.named(name)
    if there is None:
        return ""
    if there.own:
        return f"You already have a preset {name}. It will be replaced."
    return f"AAPO Desk has a built-in preset {name}. Yours will be listed and used instead of it."
