"""The dialog that lists a run's alarms on top of its monitor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Static

from aapo_desk.health import Alarm
from aapo_desk.tui.screens.dialogs import Dialog
from aapo_desk.tui.widgets.alarms import alarms_text
from aapo_desk.tui.widgets.pane import Pane


class AlarmsScreen(Dialog[None]):
    """The active alarms with advice, the most serious first."""

    AUTO_FOCUS = "#dialog-body"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,a,q,enter", "dismiss", "Close")]

    def __init__(self, alarms: Sequence[Alarm], live: bool) -> None:
        super().__init__()
        self._meanwhile = "; the run continues" if live else ""
        self._text = alarms_text(alarms)

    def compose(self) -> ComposeResult:
        with Container(id="dialog"):
            with Pane(id="dialog-body"):
                yield Static(self._text, id="dialog-text")
            yield Static(Content.styled(f"\nesc closes{self._meanwhile}", "$foreground 70%"))
