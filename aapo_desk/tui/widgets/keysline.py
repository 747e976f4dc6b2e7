"""The line of keys at the bottom of every screen."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Footer

from aapo_desk.tui.watchers import forget_closed


class KeysLine(Footer):
    """Textual's footer, compact. It is made anew only where a key has changed: else it would be with many a key press.

    Each of its keys is compact from the start and is styled once. Textual's become so as they are mounted, and are
    styled a second time: an eighth of what it takes to open a screen.
    """

    def __init__(self) -> None:
        super().__init__(compact=True)
        self._made_of: list[tuple[Binding, bool, str]] | None = None

    def compose(self) -> ComposeResult:
        self._made_of = self._keys() if self._bindings_ready else None
        for part in super().compose():
            if type(part).__name__ == "FooterKey":  # not one of the public widgets
                part.add_class("-compact", update=False)
            yield part

    def bindings_changed(self, screen: Screen[object]) -> None:
        """Some key may have changed. What is asked for here is made once all is told."""
        if self._made_of is not None and screen is self.screen:
            keys = self._keys()
            if keys == self._made_of:
                return
            if screen.app.app_focus and self.is_attached:
                self._made_of = keys
        super().bindings_changed(screen)

    async def recompose(self) -> None:
        """Make the keys anew and let go of those before."""
        await super().recompose()
        forget_closed(self)

    def _keys(self) -> list[tuple[Binding, bool, str]]:
        return [(binding, enabled, tooltip) for _, binding, enabled, tooltip in self.screen.active_bindings.values()]
