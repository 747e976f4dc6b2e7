"""A small histogram: a title, bars, and an axis that shows its ends and zero."""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from textual.strip import Strip

from aapo_desk.store import Histogram
from aapo_desk.tui.widgets.blocks import bars, fit_bins
from aapo_desk.tui.widgets.cells import Piece, runs, strip
from aapo_desk.tui.widgets.drawn import Drawn


class HistogramView(Drawn):
    """A histogram of one step. Bars below and above zero differ in colour, and the axis marks zero."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "histogram--title",
        "histogram--axis",
        "histogram--below",
        "histogram--above",
    }
    ALLOW_SELECT = False

    def __init__(self, title: str, short: str, *, id: str) -> None:
        super().__init__(id=id)
        self._title = title
        self._short = short
        self._histogram: Histogram | None = None
        self._absent = ""

    def show(self, histogram: Histogram | None, absent: str = "no values in this step") -> None:
        """Draw this histogram from now on, or the reason ``absent`` if the step has none."""
        if (histogram, absent) != (self._histogram, self._absent):
            self._histogram, self._absent = histogram, absent
            self.refresh()

    @property
    def shown(self) -> Histogram | None:
        return self._histogram

    def render_line(self, y: int) -> Strip:
        ground, width, height = self.ground, self.size.width, self.size.height
        inner = max(1, width - 1)  # one blank column between neighbouring histograms
        item = self._histogram
        if y == 0:
            return strip([(self._heading(inner), self._style("title"))], width, ground)
        if item is None or not item.counts or not sum(item.counts):
            text = self._absent if y == max(1, height // 2) else ""
            return strip([(text, self._style("axis"))], width, ground)
        counts, columns = fit_bins(item.counts, inner)
        if y == height - 1:
            return strip([(axis(item, len(counts) * columns), self._style("axis"))], width, ground)
        row = bars(counts, max(1, height - 2))[y - 1]
        return strip(self._bar_pieces(row, item, columns), width, ground)

    def _style(self, part: str) -> Style:
        return self.get_component_rich_style(f"histogram--{part}")

    def _heading(self, width: int) -> str:
        if self._histogram is None or not self._histogram.counts:
            return self._title
        top = f"max {max(fit_bins(self._histogram.counts, width)[0])}"  # of the bars as drawn, after merging bins
        title = next((each for each in (self._title, self._short) if len(each) + len(top) + 2 <= width), "")
        return f"{title}  {top}" if title else self._short

    def _bar_pieces(self, row: str, item: Histogram, columns: int) -> list[Piece]:
        zero = zero_column(item, len(row) * columns)
        cells = [
            (character, "below" if zero is not None and (place * columns) < zero else "above")
            for place, character in enumerate(row)
        ]
        return [(text, self._style(name)) for text, name in runs((cell * columns, name) for cell, name in cells)]


def zero_column(item: Histogram, width: int) -> int | None:
    """Return the first column of the bin that contains 0, or None if 0 is outside the histogram."""
    if not item.low <= 0 <= item.high or item.high <= item.low:
        return None
    bins = len(item.counts)
    place = min(bins - 1, int((0 - item.low) / (item.high - item.low) * bins + 1e-9))
    return place * width // bins


def axis(item: Histogram, width: int) -> str:
    """Return the axis, as wide as the bars above it, as in ``-1.50 ──── 0 ──── 1.50``."""
    low, high = f"{item.low:.3g}", f"{item.high:.3g}"
    line = ["─"] * width
    if len(low) + len(high) + 1 > width:
        return "".join(line)
    line[: len(low)] = low
    line[width - len(high) :] = high
    zero = zero_column(item, width)
    if zero is not None and len(low) < zero < width - len(high) - 1:
        middle = min(width - 1, zero + max(0, width // len(item.counts) - 1) // 2)
        line[middle] = "0"
    return "".join(line)
