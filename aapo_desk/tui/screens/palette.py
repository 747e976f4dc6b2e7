"""The command palette."""

from __future__ import annotations

from textual.await_complete import AwaitComplete
from textual.command import CommandPalette


class Palette(CommandPalette):
    """Textual's, but that a key which comes right behind its end, as Escape and a letter, starts no search any more.

    That search would find none of the palette's parts, and end the whole desk.
    """

    _over = False

    def dismiss(self, result: None = None) -> AwaitComplete:
        self._over = True
        self._cancel_gather_commands()
        return super().dismiss(result)

    def _gather_commands(self, search_value: str) -> None:  # type: ignore[override]
        if not self._over:
            super()._gather_commands(search_value)
