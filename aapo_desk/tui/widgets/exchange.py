"""A question in the chat and the two models' answers, shown as they are generated."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.widgets import Static

from aapo_desk.tui.text import one_line, plain

SIDES = ("base", "tuned")
MUTED = "$foreground 70%"
WHY = {"end": "", "length": ", cut off", "context": ", cut off: context full", "cancelled": ", stopped"}


class Answer(Container):
    """The answer of one model, base or tuned."""

    def __init__(self, side: str) -> None:
        super().__init__(classes=f"answer answer-{side}")
        self._side = side
        self.text = ""
        self._head = Static(self._title("waiting"), classes="answer-head", markup=False)
        self._body = Static(classes="answer-text", markup=False)

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._body

    def add(self, text: str) -> None:
        """Append generated text."""
        if not self.text:
            self._head.update(self._title("writing"))
        self._show(self.text + text)

    def end(self, said: dict[str, Any]) -> None:
        """Show the complete answer: its ``text``, number of ``tokens``, ``seconds`` and ``why`` it ended."""
        count = said["tokens"]
        words = f"{count} token{'' if count == 1 else 's'} · {said['seconds']:.1f} s{WHY[said['why']]}"
        self._head.update(self._title(words))
        self._show(said["text"])

    def absent(self) -> None:
        """Show that this model was not asked."""
        self._head.update(self._title("not asked"))

    def _title(self, words: str) -> Content:
        return Content.assemble((self._side, "bold"), (f"  {words}", MUTED))

    def _show(self, text: str) -> None:
        self.text = text
        self._body.update(plain(text.strip("\n")))


class Exchange(Container):
    """A question and its two answers. ``about`` is a note shown after the question."""

    def __init__(self, question: str, about: str) -> None:
        super().__init__(classes="exchange")
        head = Content.assemble(
            ("▸ ", "bold $text-primary"), plain(question.strip()), (f"   {about}" if about else "", MUTED)
        )
        self._question = Static(head, classes="exchange-question", markup=False)
        self._refusal = Static(classes="exchange-refusal", markup=False)
        self._refusal.display = False
        self.answers = {side: Answer(side) for side in SIDES}

    def compose(self) -> ComposeResult:
        yield self._question
        yield self._refusal
        with Container(classes="exchange-answers"):
            yield from self.answers.values()

    def refuse(self, reason: str) -> None:
        """Show why there is no answer."""
        self._refusal.update(Content.styled(f"✗ {one_line(reason)}", "$text-error"))
        self._refusal.display = True
        for answer in self.answers.values():
            answer.absent()
