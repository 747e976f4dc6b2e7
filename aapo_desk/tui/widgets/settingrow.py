"""A row of the settings form: a setting's name, the control that edits it, and a note."""

from __future__ import annotations

import textwrap

from textual import events, on
from textual.app import ComposeResult
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, TextArea

from aapo_desk.config import Setting
from aapo_desk.tui.labels import clipped
from aapo_desk.tui.text import one_line
from aapo_desk.tui.widgets.choice import ChoiceView

NAME = 26  # width in characters, with the gap after the name
NUMBER = 12  # must match new_run.tcss
LEAST_NOTE = 10
LONGEST_BEFORE = 40
FAINT = "$foreground 70%"


class SettingRow(Widget):
    """A row of the form. Its note is the error, else the preset's value if it was changed, else the bounds.

    The row itself draws name and note around the control: with a widget for each, the form would take twice as long to
    open. The note of a number is at its right, other notes are below their control.
    """

    class Edited(Message):
        """The user changed the text of the setting ``path``."""

        def __init__(self, path: str, text: str) -> None:
            super().__init__()
            self.path = path
            self.text = text

    def __init__(self, setting: Setting, text: str) -> None:
        super().__init__()
        self.setting = setting
        self._text = text
        self._changed_from: str | None = None
        self._error = ""
        self._current = False
        self._behind = setting.kind in ("integer", "number")
        self.control = self._make_control()
        if not isinstance(self.control, ChoiceView):
            self.control.cursor_blink = False  # an idle screen should draw nothing
        self.control.styles.margin = (0, 0, 0, NAME)
        if self._behind:
            self.control.styles.width = NUMBER

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
        yield self.control

    def set_text(self, text: str) -> None:
        """Replace the text without posting ``Edited``."""
        self._text = text
        with self.prevent(Input.Changed, TextArea.Changed):
            if isinstance(self.control, Input):
                self.control.value = text
            elif isinstance(self.control, TextArea):
                self.control.load_text(text)
            else:
                self.control.chosen = text

    def tell(self, before: str | None, error: str) -> None:
        """Set what the note shows.

        ``before`` is the preset's text if it was changed, else None. ``error`` is what is wrong, or "".
        """
        if (before, error) != (self._changed_from, self._error):
            self._changed_from, self._error = before, error
            self._make_room()
            self.refresh()

    def set_current(self, current: bool) -> None:
        """Set whether the cursor is on this row."""
        self._current = current
        self.refresh()

    def on_resize(self) -> None:
        self._make_room()

    def on_click(self, event: events.Click) -> None:
        if event.widget is self:
            self.control.focus()

    def _note(self) -> list[str]:
        """Return the note, wrapped into lines."""
        if self._error:
            note = f"✗ {one_line(self._error)}"
        elif self._changed_from is not None:
            note = f"preset: {clipped(one_line(self._changed_from), LONGEST_BEFORE) or 'empty'}"
        else:
            note = self.setting.bounds
        return textwrap.wrap(note, max(LEAST_NOTE, self.size.width - self._indent))

    @property
    def _indent(self) -> int:
        return NAME + NUMBER + 2 if self._behind else NAME

    def _make_room(self) -> None:
        """Reserve room below the control for the lines of the note that are not at its right."""
        lines = len(self._note())
        below = max(0, lines - 1) if self._behind else lines
        if self.control.styles.margin.bottom != below:
            self.control.styles.margin = (0, 0, below, NAME)

    def render(self) -> Content:
        mark = "✗" if self._error else " " if self._changed_from is None else "●"
        style = "$text-error" if self._error else "" if self._changed_from is None else "bold $text-primary"
        if self._current:
            style = "bold $block-cursor-foreground on $block-cursor-background"
        lines = [Content.styled(f"{mark} {self.setting.name}".ljust(NAME - 1), style)]
        note = [Content.styled(line, "$text-error" if self._error else FAINT) for line in self._note()]
        if self._behind and note:
            lines[0] = lines[0] + " " * (self._indent - NAME + 1) + note.pop(0)
        lines += [Content("")] * (self.control.size.height - 1)
        lines += [Content(" " * self._indent) + line for line in note]
        return Content("\n").join(lines)

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
