"""The line of keys at the bottom of every screen."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Footer

from aapo_desk.tui.watchers import forget_closed


class KeysLine(Footer):
    """Textual's footer, compact. Each of its keys is compact from the start and is styled once.

    Textual's become so as they are mounted, and are styled a second time: an eighth of what it takes to open a screen.
    """

    def __init__(self) -> None:
        super().__init__(compact=True)

    def compose(self) -> ComposeResult:
        for part in super().compose():
            if type(part).__name__ == "FooterKey":  # not one of the public widgets
                part.add_class("-compact", update=False)
            yield part

    async def recompose(self) -> None:
        """Make the keys anew, as Textual does whenever some may have changed, and let go of those before."""
        await super().recompose()
        forget_closed(self)
