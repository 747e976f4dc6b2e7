"""Lines of braille dots: pure functions from numbers to rows of characters.

A character cell holds 2 x 4 dots. ``draw`` takes any number of values and reads each of them once: the values that
fall into one column of dots are drawn as their range or their mean.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

BLANK = 0x2800
BITS = (0x01, 0x08, 0x02, 0x10, 0x04, 0x20, 0x40, 0x80)  # the dots of a cell, row by row
BROKEN = {"dashes": (4, 3), "dots": (1, 2)}  # number of dots that a broken line draws and then skips
SEPARATE_DOTS = 4  # if a column has more points than this, its range is filled instead

Style = Literal["points", "line", "dashes", "dots"]


@dataclass(frozen=True)
class Series:
    """Values ``ys`` at ascending ``xs``, NaN if missing. The widget chooses the colour by ``name``."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    style: Style


@dataclass(frozen=True)
class Frame:
    """The ranges of x and y that are drawn."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float


@dataclass(frozen=True)
class Row:
    """A row of characters, with the name of the topmost series in each of them; "" for a blank one."""

    text: str
    names: list[str]


def draw(series: Sequence[Series], width: int, height: int, frame: Frame) -> list[Row]:
    """Return ``height`` rows of ``width`` characters, with later series drawn over earlier ones."""
    masks = [0] * (width * height)
    names = [""] * (width * height)
    for item in series:
        name = item.name
        for column, row in _dots(item, width * 2, height * 4, frame):
            cell = (row >> 2) * width + (column >> 1)
            masks[cell] |= BITS[(row & 3) << 1 | column & 1]
            names[cell] = name
    text = "".join([chr(BLANK + mask) if mask else " " for mask in masks])
    return [Row(text[start : start + width], names[start : start + width]) for start in range(0, len(text), width)]


def columns(xs: Sequence[float], ys: Sequence[float], count: int, frame: Frame) -> list[list[float] | None]:
    """Return the finite values in each of ``count`` dot columns.

    A column is None if it contains no x, and [] if all its values are missing.
    """
    span = frame.x_high - frame.x_low
    if not xs or count < 1 or span < 0:
        return [None] * max(0, count)
    if span == 0:
        span = 1.0
    result: list[list[float] | None] = []  # below, y - y is 0 for finite numbers only, faster than math.isfinite
    edges = [frame.x_low + span * (column - 0.5) / max(1, count - 1) for column in range(count + 1)]
    places = [bisect_left(xs, edge) for edge in edges]
    for first, last in pairwise(places):
        result.append([y for y in ys[first:last] if y - y == 0.0] if last > first else None)
    return result


def _dots(series: Series, width: int, height: int, frame: Frame) -> list[tuple[int, int]]:
    binned = columns(series.xs, series.ys, width, frame)
    if series.style == "points":
        return [(x, row) for x, values in enumerate(binned) if values for row in _spread(values, height, frame)]
    dots = _line(binned, height, frame)
    if series.style in BROKEN:
        drawn, left_out = BROKEN[series.style]
        dots = [(x, row) for x, row in dots if x % (drawn + left_out) < drawn]
    return dots


def _spread(values: list[float], height: int, frame: Frame) -> Iterable[int]:
    if len(values) <= SEPARATE_DOTS:
        return {place(value, height, frame) for value in values}
    return range(place(max(values), height, frame), place(min(values), height, frame) + 1)


def _line(binned: list[list[float] | None], height: int, frame: Frame) -> list[tuple[int, int]]:
    """Return the dots of the column means, joined by a line that has a gap at missing values."""
    dots: list[tuple[int, int]] = []
    before: tuple[int, int] | None = None
    for x, values in enumerate(binned):
        if values is None:
            continue
        if not values:
            before = None
            continue
        row = place(sum(values) / len(values), height, frame)
        dots += _joined(before, (x, row)) if before else [(x, row)]
        before = (x, row)
    return dots


def _joined(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the dots of a line from ``start``, exclusive, to ``end``, inclusive."""
    (x0, row0), (x1, row1) = start, end
    dots: list[tuple[int, int]] = []
    at = row0
    for x in range(x0 + 1, x1 + 1):
        row = round(row0 + (row1 - row0) * (x - x0) / (x1 - x0))
        step = 1 if row >= at else -1
        path = range(at + step, row + step, step) if row != at else (row,)
        dots += [(x, each) for each in path]
        at = row
    return dots


def place(value: float, height: int, frame: Frame) -> int:
    """Return the dot row of a value, 0 at the top; a value outside the frame is moved to its edge."""
    span = frame.y_high - frame.y_low
    share = (frame.y_high - value) / span if span > 0 else 0.5
    return min(height - 1, max(0, round(share * (height - 1))))


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return about ``count``, but at least two, evenly spaced round numbers that enclose [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = 0.0, 1.0
    if high <= low:
        pad = abs(low) * 0.1 or 0.5
        low, high = low - pad, high + pad
    rough = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{place * step:.12g}") for place in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Return the base-10 logarithms of at least two round numbers that enclose [low, high], given as logarithms too.

    Over two decades or more these are powers of ten, every n-th of them if there are too many; over fewer decades
    they are 1, 2 and 5 times powers of ten.
    """
    first, last = math.floor(low + 1e-9), math.ceil(high - 1e-9)
    last = max(last, first + 1)
    decades = last - first
    if decades >= 2 or count < 3:
        step = max(1, math.ceil(decades / max(1, count - 1)))
        return [float(place) for place in range(first, last + step, step)]
    marks = [decade + math.log10(factor) for decade in (first, first + 1) for factor in (1, 2, 5)]
    below = max(place for place, mark in enumerate(marks) if mark <= low + 1e-9)
    above = next((place for place, mark in enumerate(marks) if mark >= high - 1e-9), len(marks) - 1)
    return marks[below : max(above, below + 1) + 1]


def log_labels(values: Sequence[float]) -> list[str]:
    """Return the labels of base-10 logarithms: the numbers themselves."""
    return [f"{10.0**value:.3g}" for value in values]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return the labels of evenly spaced numbers, with as many decimals as their spacing needs."""
    step = abs(values[1] - values[0]) if len(values) > 1 else abs(values[0]) or 1.0
    if step >= 1e6 or step < 1e-4:
        return [f"{value:.3g}" for value in values]
    digits = next(digits for digits in range(7) if abs(step - round(step, digits)) < step * 1e-6)
    return [f"{value:.{digits}f}" for value in values]
