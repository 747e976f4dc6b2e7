"""A one-line prompt above the footer, shown only while it is in use."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

# Control, zero-width and bidirectional characters are invisible or move other text, so they cannot be typed or pasted.
PLAIN = r"[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]*"
LONGEST = 200


class AskLine(Container):
    """A prompt for one line of text: Enter submits it, Escape closes the prompt."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "Close", tooltip="Close without changes")]

    class Answered(Message):
        """The user submitted a line of text."""

        def __init__(self, purpose: str, text: str) -> None:
            super().__init__()
            self.purpose = purpose
            self.text = text

    class Closed(Message):
        """The prompt was closed, so that the focus can return to where it was."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._purpose = ""

    def compose(self) -> ComposeResult:
        with Horizontal(id="ask-row"):
            yield Static(id="ask-label", markup=False)
            yield Input(id="ask-input", compact=True, restrict=PLAIN, max_length=LONGEST)
        yield Static(id="ask-wrong", markup=False)

    def on_mount(self) -> None:
        self.display = False

    def ask(self, purpose: str, before: str, hint: str) -> None:
        """Open the prompt, labelled ``purpose`` and filled with the previous text ``before``."""
        self._purpose = purpose
        self.display = True
        self.query_one("#ask-label", Static).update(Content.styled(f"{purpose} ", "bold"))
        self.refuse("")
        field = self.query_one(Input)
        field.placeholder = hint
        field.value = before
        self.screen.set_focus(field)  # at once, so that the next key is typed into the field

    def refuse(self, why: str) -> None:
        """Show below the text what is wrong with it; an empty reason removes the message."""
        wrong = self.query_one("#ask-wrong", Static)
        wrong.display = bool(why)
        wrong.update(Content(why))

    @on(Input.Submitted)
    def _give(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(self.Answered(self._purpose, event.value))

    def action_close(self) -> None:
        """Hide the prompt."""
        self.display = False
        self.post_message(self.Closed())
