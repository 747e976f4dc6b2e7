"""A line chart: braille lines over steps, with a linear or logarithmic value axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from aapo_desk.tui.widgets.braille import Frame, Row, Series, draw, log_labels, log_ticks, tick_labels, ticks
from aapo_desk.tui.widgets.plot import FEWEST_STEPS, Legend, Plot


class LineChart(Plot):
    """A chart of series over steps; later series are drawn over earlier ones."""

    def __init__(self, title: str, waiting: str, *, id: str) -> None:
        super().__init__(title, waiting, id=id)
        self._series: list[Series] = []
        self._log = False
        self._span: tuple[float, float] | None = None
        self._rows: list[Row] = []
        self._ticks: list[float] = [0.0, 1.0]
        self._tick_labels: list[str] = []
        self._drawn_for: tuple[int, int] | None = None
        self._frame = Frame(1, FEWEST_STEPS, 0, 1)

    def show(
        self,
        series: list[Series],
        legend: list[Legend],
        log: bool = False,
        span: tuple[float, float] | None = None,
    ) -> None:
        """Draw these series from now on.

        ``log`` makes the value axis logarithmic and draws only values above 0. ``span`` is a range of values that the
        linear axis always includes.
        """
        self._series = [_logarithm(item) for item in series] if log else series
        self._legend, self._log, self._span = legend, log, None if log else span
        self._drawn_for = None
        self.refresh()

    @property
    def empty(self) -> bool:
        return not any(y - y == 0.0 for item in self._series for y in item.ys)

    def _draw(self) -> None:
        size = (self.size.width, self._plot_height)
        if self._drawn_for == size:
            return
        self._drawn_for = size
        values = [item.ys for item in self._series]
        low, high = bounds(values) if self._log else value_range([*values, self._span] if self._span else values)
        count = max(2, min(6, (self._plot_height + 1) // 2))
        self._ticks = log_ticks(low, high, count) if self._log else ticks(low, high, count)
        self._tick_labels = log_labels(self._ticks) if self._log else tick_labels(self._ticks)
        steps = [item.xs for item in self._series if len(item.xs)]
        self._first, last = (int(steps[0][0]), int(steps[0][-1])) if steps else (1, 1)
        self._last = max(last, self._first + FEWEST_STEPS - 1)
        self._frame = Frame(self._first, self._last, self._ticks[0], self._ticks[-1])
        self._rows = draw(self._series, self._plot_width, self._plot_height, self._frame)

    @property
    def _labels(self) -> Sequence[str]:
        return self._tick_labels

    def _cells(self, row: int) -> list[tuple[str, str]]:
        return list(zip(self._rows[row].text, self._rows[row].names, strict=True))

    def _label_at(self, row: int) -> tuple[str, str]:
        frame, height = self._frame, self._plot_height
        for value, label in zip(self._ticks, self._tick_labels, strict=True):
            share = (frame.y_high - value) / (frame.y_high - frame.y_low)
            if round(share * (height - 1)) == row:
                return label, "┤"
        return "", "│"


def _logarithm(series: Series) -> Series:
    return replace(series, ys=[math.log10(y) if 0 < y < math.inf else math.nan for y in series.ys])


def bounds(columns: Iterable[Sequence[float]]) -> tuple[float, float]:
    """Return the lowest and the highest finite value, or 0 and 1 if there is none.

    Both are the lowest value if they differ only by rounding error.
    """
    finite = [y for column in columns for y in column if y - y == 0.0]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    return (low, low) if high - low <= 1e-9 * max(abs(low), abs(high)) else (low, high)


def value_range(columns: Iterable[Sequence[float]]) -> tuple[float, float]:
    """Return the range of a linear axis: the bounds, or a range around the value if all values are the same."""
    low, high = bounds(columns)
    if low != high or low < 0:
        return low, high
    return (0.0, 2 * low) if low else (0.0, 1.0)
