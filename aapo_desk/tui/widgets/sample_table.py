"""The step's pairs of completions in a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text
from textual.widgets import DataTable

from aapo_desk.tui.sample_rows import Column, Pair

DESCENDING, ASCENDING = "▾", "▴"


class SampleTable(DataTable[Text], inherit_bindings=False):
    """Shows pairs in the order given, the cursor on one of them; the keys are the screen's."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, cursor_type="row", cell_padding=0)
        self._titles: list[Text] = []
        self.shown: list[Pair] = []

    def show(
        self, items: Sequence[Pair], columns: Sequence[Column], sorted_by: str, descending: bool, place: int
    ) -> None:
        """Fill the table anew, the cursor on the pair at ``place``."""
        self.shown = list(items)
        mark = DESCENDING if descending else ASCENDING
        titles = [_cell(column, f"{column.title}{mark if column.key == sorted_by else ''}") for column in columns]
        if titles != self._titles:
            self._titles = titles
            self.clear(columns=True)
            for column, title in zip(columns, titles, strict=True):
                self.add_column(title, width=max(column.width, len(title) + 1), key=column.key)
        else:
            self.clear()
        for pair in items:
            self.add_row(*(_cell(column, column.show(pair)) for column in columns))
        if items:
            self.move_cursor(row=min(place, len(items) - 1), animate=False)

    @property
    def chosen(self) -> Pair | None:
        """The pair under the cursor."""
        return self.shown[self.cursor_row] if 0 <= self.cursor_row < len(self.shown) else None


def _cell(column: Column, words: str) -> Text:
    """Words cut to the column's width, which ends in a blank: numbers stand to the right, prompts to the left."""
    width = column.width - 1
    if cell_len(words) > width and column.key == "prompt":
        words = set_cell_size(words, width - 1) + "…"
    return Text(words, justify="left" if column.key == "prompt" else "right", no_wrap=True)
