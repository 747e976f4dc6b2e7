"""One setting of the form: its name, what it is edited with, and what is to be said of it."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static, TextArea

from aapo_desk.config import Setting
from aapo_desk.tui.labels import clipped
from aapo_desk.tui.text import one_line
from aapo_desk.tui.widgets.choice import ChoiceView

LONGEST_BEFORE = 40


class SettingRow(Horizontal):
    """A row of the form. Its note is the error, else the preset's value where it is another, else the bounds."""

    class Edited(Message):
        """The text in a row is another now."""

        def __init__(self, path: str, text: str) -> None:
            super().__init__()
            self.path = path
            self.text = text

    def __init__(self, setting: Setting, text: str) -> None:
        super().__init__(classes=f"-{setting.kind}")
        self.setting = setting
        self._text = text
        self._state: tuple[str | None, str] | None = None
        self._label = Static(classes="setting-name", markup=False)
        self._note = Static(classes="setting-note", markup=False)
        self.control = self._make_control()

    def _make_control(self) -> Input | TextArea | ChoiceView:
        match self.setting.kind:
            case "choice":
                return ChoiceView([self.setting.show(choice) for choice in self.setting.choices], self._text)
            case "yaml":
                return TextArea(self._text, compact=True, highlight_cursor_line=False, placeholder="{}")
            case kind:
                hint = "none" if self.setting.optional else ""
                return Input(self._text, hint, compact=True, select_on_focus=kind != "text")

    def compose(self) -> ComposeResult:
        yield self._label
        with Container(classes="setting-body"):
            yield self.control
            yield self._note

    def on_mount(self) -> None:
        self.tell(None, "")

    def set_text(self, text: str) -> None:
        """Put another text there, without a word about it."""
        self._text = text
        with self.prevent(Input.Changed, TextArea.Changed):
            if isinstance(self.control, Input):
                self.control.value = text
            elif isinstance(self.control, TextArea):
                self.control.load_text(text)
            else:
                self.control.chosen = text

    def tell(self, before: str | None, error: str) -> None:
        """``before``: the preset's text where it is another, else None. ``error``: what is wrong, "" where nothing."""
        if (before, error) == self._state:
            return
        self._state = (before, error)
        mark = "✗" if error else " " if before is None else "●"
        style = "$text-error" if error else "" if before is None else "bold $text-primary"
        self._label.update(Content.styled(f"{mark} {self.setting.name}", style), layout=False)
        if error:
            note = Content.styled(f"✗ {one_line(error)}", "$text-error")
        elif before is not None:
            note = Content.styled(f"preset: {clipped(one_line(before), LONGEST_BEFORE) or 'empty'}", "$foreground 70%")
        else:
            note = Content.styled(self.setting.bounds, "$foreground 70%")
        self._note.update(note)
        self._note.display = bool(note)

    @on(Input.Changed)
    @on(TextArea.Changed)
    @on(ChoiceView.Changed)
    def _changed(self, event: Input.Changed | TextArea.Changed | ChoiceView.Changed) -> None:
        event.stop()
        control = self.control
        if isinstance(control, Input):
            text = control.value
        else:
            text = control.text if isinstance(control, TextArea) else control.chosen
        if text != self._text:
            self._text = text
            self.post_message(self.Edited(self.setting.path, text))
