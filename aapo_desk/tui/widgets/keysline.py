"""The line of keys at the bottom of every screen."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Footer

from aapo_desk.tui.watchers import forget_closed


class KeysLine(Footer):
    """Textual's footer in its compact form, recomposed only if a key has changed.

    Textual's own footer is recomposed after many key presses. It also makes its keys compact only when they are mounted
    and so styles them twice, which is an eighth of the time to open a screen. Here they are compact from the start.
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
        """Recompose the footer if a key of the screen has changed.

        Textual recomposes after the next refresh. The keys are recorded at once, so that further messages before then
        ask for nothing more.
        """
        if self._made_of is not None and screen is self.screen:
            keys = self._keys()
            if keys == self._made_of:
                return
            if screen.app.app_focus and self.is_attached:
                self._made_of = keys
        super().bindings_changed(screen)

    async def recompose(self) -> None:
        """Create the keys again and release the old ones."""
        await super().recompose()
        forget_closed(self)

    def _keys(self) -> list[tuple[Binding, bool, str]]:
        return [(binding, enabled, tooltip) for _, binding, enabled, tooltip in self.screen.active_bindings.values()]
