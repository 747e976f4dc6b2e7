"""A choice between a few words: all of them are visible, or those around the chosen one if the row is too short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

GAP = 2
"""Number of cells between two choices."""
MORE = 1 + GAP
"""Number of cells of the sign for more choices, with its gap."""


class ChoiceView(Widget, can_focus=True):
    """A row of choices like ``● nf4  ○ none``, changed by the left and right keys or a click.

    ``chosen`` may be a text that is none of the choices.
    """

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "choose(-1)", "Previous choice", show=False),
        Binding("right,l,space", "choose(1)", "Next choice", show=False),
    ]
    chosen: reactive[str] = reactive("")

    class Changed(Message):
        """The user chose another word."""

        def __init__(self, chosen: str) -> None:
            super().__init__()
            self.chosen = chosen

    def __init__(self, choices: Sequence[str], chosen: str) -> None:
        super().__init__()
        self.choices = list(choices)
        self.set_reactive(ChoiceView.chosen, chosen)

    def render(self) -> Content:
        shown = self.in_sight(self.size.width)
        choices = [
            Content.styled(f"● {choice}", "bold $text-primary")
            if choice == self.chosen
            else Content.styled(f"○ {choice}", "$foreground 80%")
            for choice in self.choices[shown.start : shown.stop]
        ]
        before = [Content("…")] if shown.start else []
        after = [Content("…")] if shown.stop < len(self.choices) else []
        return Content("  ").join([*before, *choices, *after])

    def in_sight(self, width: int) -> range:
        """Return the indices of the choices that are drawn in ``width`` cells.

        These are all choices, or else as many as fit, starting as close to the first one as the chosen one allows.
        """
        cells = [len(choice) + GAP + len("● ") for choice in self.choices]
        if sum(cells) - GAP <= width or width == 0:
            return range(len(cells))
        room = width - 2 * MORE + GAP
        place = self.choices.index(self.chosen) if self.chosen in self.choices else 0
        first, stop = 0, 0
        while stop < len(cells) and (stop <= place or sum(cells[first : stop + 1]) <= room):
            stop += 1
            while first < place and sum(cells[first:stop]) > room:
                first += 1
        return range(first, stop)

    def action_choose(self, step: int) -> None:
        """Move to the next (1) or the previous (-1) choice; the first follows the last."""
        place = self.choices.index(self.chosen) if self.chosen in self.choices else -step
        self._take(self.choices[(place + step) % len(self.choices)])

    def on_click(self, event: events.Click) -> None:
        shown = self.in_sight(self.size.width)
        left = MORE if shown.start else 0
        for choice in self.choices[shown.start : shown.stop]:
            width = len(choice) + GAP + len("● ")
            if left <= event.x < left + width:
                self._take(choice)
            left += width

    def _take(self, choice: str) -> None:
        if choice != self.chosen:
            self.chosen = choice
            self.post_message(self.Changed(choice))
