"""A heat map of a histogram over the steps. Shares are shown by the density of characters, not only by colour."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from aapo_desk.store import Histogram
from aapo_desk.tui.labels import percent
from aapo_desk.tui.widgets.cells import Piece
from aapo_desk.tui.widgets.histogram import zero_column
from aapo_desk.tui.widgets.plot import FEWEST_STEPS, Legend, Plot

DENSITY = " ·░▒▓█"
MOST_STEPS = 512  # most histograms read; of a longer run only every second, fourth, ... step is read


def steps_to_read(first: int, last: int) -> range:
    """Return the steps whose histograms make up the map: all of them, or the multiples of a power of two.

    With powers of two, many histograms that have been read remain useful when the run grows longer.
    """
    stride = 1
    while last - first + 1 > MOST_STEPS * stride:
        stride *= 2
    return range(-(-first // stride) * stride, last + 1, stride)


class HeatMap(Plot):
    """A heat map with steps from left to right and values from bottom to top.

    The larger the share of rows (completions) in a bin, the denser its character. Bins below zero have their own
    colour.
    """

    def __init__(self, title: str, waiting: str, *, id: str) -> None:
        super().__init__(title, waiting, id=id)
        self._items: dict[int, Histogram | None] = {}
        self._known: list[int] = []
        self._wanted = range(0)
        self._grid: list[str] = []
        self._zero_row: int | None = None
        self._axis_labels: dict[int, str] = {}
        self._peak = 0.0
        self._drawn_for: tuple[int, int] | None = None

    def missing(self, first: int, last: int) -> list[int]:
        """Return the steps whose histograms are still to be read for a run from ``first`` to ``last``."""
        return [step for step in steps_to_read(first, last) if step not in self._items]

    def span(self, first: int, last: int) -> None:
        """Set the steps that the map shows and drop the histograms of other steps."""
        self._first, self._last = first, max(last, first + FEWEST_STEPS - 1)
        wanted = steps_to_read(first, last)
        if wanted != self._wanted:  # otherwise the map needs the same histograms
            self._wanted = wanted
            self._put({step: item for step, item in self._items.items() if step in wanted})
        self.refresh()

    def add(self, histograms: Mapping[int, Histogram | None]) -> None:
        """Add histograms that have been read, with None for a step that has no such histogram."""
        # The history may have been rewound since the steps were asked for, so steps outside the map are ignored.
        wanted = {step: item for step, item in histograms.items() if step in self._wanted}
        self._put({**self._items, **wanted})

    def clear(self) -> None:
        """Drop all histograms, because the history was rewound."""
        self._put({})

    def _put(self, items: dict[int, Histogram | None]) -> None:
        self._items = items
        self._known = _alike({step: item for step, item in items.items() if item is not None and any(item.counts)})
        self._drawn_for = None
        self.refresh()

    def mark(self, cursor: int | None, legend: list[Legend], line: bool) -> None:
        """Put the cursor on a step. ``legend`` is ignored, because the map makes its own."""
        super().mark(cursor, self._legend, line)

    def _title_pieces(self) -> list[Piece]:
        self._draw()
        top = percent(self._peak)
        self._legend = [Legend("raw", DENSITY[1:], f"up to {top} of the rows", f"up to {top}")] if self._known else []
        return super()._title_pieces()

    @property
    def empty(self) -> bool:
        return not self._known

    def _draw(self) -> None:
        size = (self.size.width, self._plot_height)
        if self._drawn_for == size or not self._known:
            return
        self._drawn_for = size
        item = self._items[self._known[-1]]
        assert item is not None
        merge = merged(len(item.counts), self._plot_height)
        levels = len(item.counts) // merge
        by_row = [row * levels // self._plot_height for row in reversed(range(self._plot_height))]
        zero = zero_column(item, len(item.counts))
        around_zero = [row for row, level in enumerate(by_row) if zero is not None and level == zero // merge]
        self._zero_row = around_zero[-1] if around_zero else None
        self._axis_labels = _labels(item, self._plot_height, self._zero_row)
        shares = [self._shares(column, merge) for column in range(self._plot_width)]
        self._peak = max((share for column in shares for share in column or ()), default=0.0)
        lines = ["".join(_density(column, level, self._peak) for column in shares) for level in range(levels)]
        self._grid = [lines[level] for level in by_row]

    def _shares(self, column: int, merge: int) -> list[float] | None:
        """Return the share of rows in each bin over the steps of a column, or None for a column after the last step."""
        size = (self._last - self._first) / max(1, self._plot_width - 1)
        left = self._first + (column - 0.5) * size
        known = self._known
        steps = known[bisect_left(known, left) : bisect_left(known, left + size)]
        if not steps and known[0] < left < known[-1]:
            steps = [known[bisect_right(known, left) - 1]]
        if not steps:
            return None
        items = [item for step in steps if (item := self._items[step]) is not None]
        sums = [sum(bin_) for bin_ in zip(*(item.counts for item in items), strict=False)]
        total = sum(sums)
        return [sum(sums[start : start + merge]) / total for start in range(0, len(sums), merge)]

    @property
    def _labels(self) -> Sequence[str]:
        return list(self._axis_labels.values())

    def _cells(self, row: int) -> list[tuple[str, str]]:
        if row >= len(self._grid):
            return []
        above = self._zero_row is None or row <= self._zero_row
        return [(character, "lead" if above else "second") for character in self._grid[row]]

    def _label_at(self, row: int) -> tuple[str, str]:
        return (label, "┤") if (label := self._axis_labels.get(row)) else ("", "│")


def _alike(items: Mapping[int, Histogram]) -> list[int]:
    """Return the steps with the same bin edges as the last step: a fork may use other edges than the run it copied."""
    last = items[max(items)] if items else None
    return sorted(step for step, item in items.items() if last and (item.low, item.high) == (last.low, last.high))


def _density(column: list[float] | None, place: int, peak: float) -> str:
    """Return the character of one bin of a column.

    Its density grows with the square root of the bin's share of the peak, so that small shares are visible.
    """
    share = column[place] if column and place < len(column) else 0.0
    return DENSITY[math.ceil(math.sqrt(share / peak) * (len(DENSITY) - 1) - 1e-9)] if share and peak else DENSITY[0]


def merged(bins: int, height: int) -> int:
    """Return how many bins share a row of characters.

    The number divides ``bins``, since rows of different numbers of bins would differ in density for that alone.
    """
    return next(merge for merge in range(1, bins + 1) if bins % merge == 0 and bins // merge <= max(1, height))


def _labels(item: Histogram, height: int, zero_row: int | None) -> dict[int, str]:
    """Return the axis labels, the ends and zero, by row from the top."""
    labels = {height - 1: f"{item.low:.3g}", 0: f"{item.high:.3g}"}
    if zero_row is not None:
        labels.setdefault(zero_row, "0")
    return labels
