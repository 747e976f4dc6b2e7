"""A table of a step's pairs of completions."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text
from textual.widgets import DataTable

from aapo_desk.tui.sample_rows import Column, Pair

DESCENDING, ASCENDING = "▾", "▴"
GAP = "  "
SCROLLBAR = 1
MOST_MORE = 30


class SampleTable(DataTable[Text], inherit_bindings=False):
    """A table that shows pairs in the given order, with the cursor on one of them. The screen handles the keys."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, cursor_type="row", cell_padding=0)
        self.shown: list[Pair] = []
        self._columns: list[Column] = []
        self._titles: list[str] = []
        self._widths: list[int] = []
        self._heads: list[tuple[str, str, int]] = []

    def show(
        self, items: Sequence[Pair], columns: Sequence[Column], sorted_by: str, descending: bool, place: int
    ) -> None:
        """Fill the table with these pairs and put the cursor on the one at index ``place``."""
        mark = DESCENDING if descending else ASCENDING
        self.shown = list(items)
        self._columns = list(columns)
        self._titles = [f"{column.title}{mark if column.key == sorted_by else ''}" for column in columns]
        self._fill(place)

    def on_resize(self) -> None:
        if self._fitting() != self._widths:
            self._fill(self.cursor_row)

    def _fitting(self) -> list[int]:
        """Return the widths of the columns; the prompt column also gets the room that is left over."""
        widths = [
            max(column.width, cell_len(title) + 1) for column, title in zip(self._columns, self._titles, strict=True)
        ]
        left = min(MOST_MORE, max(0, self.size.width - SCROLLBAR - sum(widths)))
        keys = [column.key for column in self._columns]
        return [width + (left if key == "prompt" else 0) for key, width in zip(keys, widths, strict=True)]

    def _fill(self, place: int) -> None:
        self._widths = self._fitting()
        heads = list(zip(self._columns, self._titles, self._widths, strict=True))
        named = [(column.key, title, width) for column, title, width in heads]
        if named != self._heads:
            self._heads = named
            self.clear(columns=True)
            for column, title, width in heads:
                self.add_column(_cell(column, title, width), width=width, key=column.key)
        else:
            self.clear()
        for pair in self.shown:
            self.add_row(*(_cell(column, column.show(pair), width) for column, _, width in heads))
        if self.shown:
            self.move_cursor(row=min(place, len(self.shown) - 1), animate=False)

    @property
    def chosen(self) -> Pair | None:
        """Return the pair under the cursor, or None if the table is empty."""
        return self.shown[self.cursor_row] if 0 <= self.cursor_row < len(self.shown) else None


def _cell(column: Column, words: str, width: int) -> Text:
    """Return a cell: numbers are right-aligned, prompts left-aligned after two blanks.

    Of a prompt that is too long, the end is shown.
    """
    if column.key != "prompt":
        return Text(words, justify="right", no_wrap=True)
    if cell_len(words) > width - len(GAP):
        room = width - len(GAP) - 1
        while cell_len(words) > room:
            words = words[1:]
        words = f"…{words}"
    return Text(GAP + words, no_wrap=True)
