"""The field a question is typed into: Enter asks it, its lines wrap, and it grows with them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea
from textual.widgets.text_area import Edit, EditResult

# What would not be seen, or would move things about, cannot be typed or pasted; line ends can.
UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]",
)


class QuestionField(TextArea, inherit_bindings=False):
    """Text of some lines. The keys that move in it are TextArea's, and not listed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "ask", "Ask", key_display="⏎", priority=True, tooltip="Ask both models this question"),
        Binding("ctrl+j,alt+enter", "new_line", "New line", show=False, tooltip="A new line in the question"),
        Binding(
            "tab",
            "screen.own(1)",
            "Prompts",
            key_display="⇥",
            tooltip="The next of the run's own problems, with its right answer",
        ),
        Binding("shift+tab", "screen.own(-1)", "Problem before", show=False, tooltip="The run's problem before it"),
        Binding("pagedown", "screen.page(1)", "A page down", show=False),
        Binding("pageup", "screen.page(-1)", "A page up", show=False),
        Binding("ctrl+y", "app.copy", "Copy", show=False, tooltip="Copy what is selected, else the tuned answer"),
        *(replace(binding, system=True) for binding in TextArea.BINDINGS if isinstance(binding, Binding)),
    ]

    class Asked(Message):
        """A question is complete."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, *, id: str, placeholder: str) -> None:
        super().__init__(id=id, compact=True, highlight_cursor_line=False, placeholder=placeholder)

    def on_mount(self) -> None:
        self.cursor_blink = False

    def edit(self, edit: Edit) -> EditResult:
        """As TextArea's, without what cannot be seen."""
        edit.text = UNSEEN.sub("", edit.text.replace("\r\n", "\n").replace("\r", "\n")).expandtabs(4)
        return super().edit(edit)

    def put(self, text: str) -> None:
        """Another text, the cursor behind it."""
        self.text = text
        self.move_cursor(self.document.end)

    def action_ask(self) -> None:
        if self.text.strip():
            self.post_message(self.Asked(self.text))

    def action_new_line(self) -> None:
        self.insert("\n")
