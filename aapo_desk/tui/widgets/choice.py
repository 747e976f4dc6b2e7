"""One of a few words, all of them in sight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget


class ChoiceView(Widget, can_focus=True):
    """``● nf4  ○ none``: left and right choose, and so does a click. ``chosen`` may be none of the choices."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "choose(-1)", "Choice before", show=False),
        Binding("right,l,space", "choose(1)", "Next choice", show=False),
    ]
    chosen: reactive[str] = reactive("")

    class Changed(Message):
        """Another choice was made."""

        def __init__(self, chosen: str) -> None:
            super().__init__()
            self.chosen = chosen

    def __init__(self, choices: Sequence[str], chosen: str) -> None:
        super().__init__()
        self.choices = list(choices)
        self.set_reactive(ChoiceView.chosen, chosen)

    def render(self) -> Content:
        return Content("  ").join(
            Content.styled(f"● {choice}", "bold $text-primary")
            if choice == self.chosen
            else Content.styled(f"○ {choice}", "$foreground 80%")
            for choice in self.choices
        )

    def action_choose(self, step: int) -> None:
        """The next choice, or the one before; the last is followed by the first."""
        place = self.choices.index(self.chosen) if self.chosen in self.choices else -step
        self._take(self.choices[(place + step) % len(self.choices)])

    def on_click(self, event: events.Click) -> None:
        left = 0
        for choice in self.choices:
            width = len(choice) + 4
            if left <= event.x < left + width:
                self._take(choice)
            left += width

    def _take(self, choice: str) -> None:
        if choice != self.chosen:
            self.chosen = choice
            self.post_message(self.Changed(choice))
