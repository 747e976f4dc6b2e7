"""The input field for a question: Enter asks it, long lines wrap, and the field grows with its text."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea
from textual.widgets.text_area import Edit, EditResult

# Control, zero-width and bidirectional characters are invisible or move other text, so they cannot be typed or pasted.
# Line breaks can.
UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]",
)


class QuestionField(TextArea, inherit_bindings=False):
    """A field for several lines of text. It has TextArea's keys for editing, which are not listed in the footer."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "ask", "Ask", key_display="⏎", priority=True, tooltip="Ask both models this question"),
        Binding("ctrl+j,alt+enter", "new_line", "New line", show=False, tooltip="Insert a line break"),
        Binding(
            "tab",
            "screen.own(1)",
            "Prompts",
            key_display="⇥",
            tooltip="Use the run's next problem and show its right answer",
        ),
        Binding("shift+tab", "screen.own(-1)", "Previous prompt", show=False, tooltip="Use the run's previous problem"),
        Binding("pagedown", "screen.page(1)", "Page down", show=False),
        Binding("pageup", "screen.page(-1)", "Page up", show=False),
        Binding("ctrl+y", "app.copy", "Copy", show=False, tooltip="Copy the selected text, or else the tuned answer"),
        *(replace(binding, system=True) for binding in TextArea.BINDINGS if isinstance(binding, Binding)),
    ]

    class Asked(Message):
        """The user asked the question in the field."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, *, id: str, placeholder: str) -> None:
        super().__init__(id=id, compact=True, highlight_cursor_line=False, placeholder=placeholder)

    def on_mount(self) -> None:
        self.cursor_blink = False

    def edit(self, edit: Edit) -> EditResult:
        """Apply an edit as TextArea does, without its invisible characters."""
        edit.text = UNSEEN.sub("", edit.text.replace("\r\n", "\n").replace("\r", "\n")).expandtabs(4)
        return super().edit(edit)

    def put(self, text: str) -> None:
        """Replace the text and put the cursor at its end."""
        self.text = text
        self.move_cursor(self.document.end)

    def action_ask(self) -> None:
        if self.text.strip():
            self.post_message(self.Asked(self.text))

    def action_new_line(self) -> None:
        self.insert("\n")
