"""The list of presets, with a verdict for each on whether it fits this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from aapo_desk.tui.listing import PresetRow
from aapo_desk.tui.text import one_line

VERDICTS = {
    "fits": ("✓ fits", "$text-success"),
    "tight": ("≈ tight", "$text-warning"),
    "too large": ("✗ too large", "$text-error"),
    "no GPU": ("✗ no GPU", "$text-error"),
    "unknown": ("? unknown", "$foreground 70%"),
}
NAME, VERDICT = 24, 11  # widths in characters; a longer name makes its column wider
WIDE_LINE = 48


class PresetList(OptionList):
    """A list of presets. Enter shows the preset under the cursor and asks whether to start it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "Start", tooltip="Show this preset, then start it"),
        Binding("e", "screen.new_run", "Edit first", tooltip="Edit this preset in a form"),
        Binding("a", "screen.enqueue", "Queue", show=False, tooltip="Add a run of this preset to the queue"),
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
        Binding("g", "first", "First preset", show=False),
        Binding("G", "last", "Last preset", show=False),
    ]

    def show(self, rows: Sequence[PresetRow], wide: bool) -> None:
        """List these presets. The cursor stays on its preset, or on its line if the preset is gone."""
        place = self.highlighted or 0
        under_cursor = self.get_option_at_index(place).id if place else None
        self.clear_options()
        width = max([NAME, *(len(one_line(row.name)) for row in rows)])
        self.add_options([Option(_offer(row, wide, width), id=row.name) for row in rows])
        places = [number for number, row in enumerate(rows) if row.name == under_cursor]
        self.highlighted = min([*places, place][0], len(rows) - 1) if rows else None


def _offer(row: PresetRow, wide: bool, width: int) -> Content:
    """Return a preset as one line of text, or as two lines if ``wide``."""
    name, title = one_line(row.name), "✗ cannot be used" if row.error else one_line(row.title)
    words, style = VERDICTS[row.fit.verdict] if row.fit else ("", "")
    faint = "$foreground 70%"
    if wide:
        return Content.assemble((f"{name:<{WIDE_LINE - VERDICT}}", "bold"), (words, style), "\n", (f"  {title}", faint))
    return Content.assemble((f"{name:<{width}} ", "bold"), (f"{words:<{VERDICT}}", style), "  ", (title, faint))
