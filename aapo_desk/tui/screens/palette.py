"""The command palette."""

from __future__ import annotations

from textual.await_complete import AwaitComplete
from textual.command import CommandPalette


class Palette(CommandPalette):
    """Textual's command palette, except that a key pressed right after closing it does not start another search.

    Escape followed quickly by a letter would start one. It would find the palette's widgets gone and crash the app.
    """

    _over = False

    def dismiss(self, result: None = None) -> AwaitComplete:
        self._over = True
        self._cancel_gather_commands()
        return super().dismiss(result)

    def _gather_commands(self, search_value: str) -> None:  # type: ignore[override]
        if not self._over:
            super()._gather_commands(search_value)
