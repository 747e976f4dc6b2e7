"""Bars drawn with eighth-block characters: pure functions from numbers to rows of characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

RISING = " ▁▂▃▄▅▆▇█"
GROWING = " ▏▎▍▌▋▊▉█"


def fit_bins(counts: Sequence[int], width: int) -> tuple[list[int], int]:
    """Return the bins of a histogram that fits ``width``, and the number of columns for each bin.

    Neighbouring bins are merged in groups of equal size if there are too many, or widened if there is room. No count
    is lost: the bins add up to the sum of ``counts``.
    """
    if not counts or width < 1:
        return [], 1
    if len(counts) <= width:
        return list(counts), width // len(counts)
    merge = math.ceil(len(counts) / width)
    return [sum(counts[start : start + merge]) for start in range(0, len(counts), merge)], 1


def bars(values: Sequence[float], height: int, top: float | None = None) -> list[str]:
    """Return vertical bars as ``height`` rows of text, top row first.

    ``top`` is the value of a full bar (default: the largest value). A value above zero shows at least an eighth.
    """
    top = max(values, default=0) if top is None else top
    eighths = [_eighths(value, top, height * 8) for value in values]
    rows = range(height - 1, -1, -1)
    return ["".join(RISING[min(8, max(0, filled - row * 8))] for filled in eighths) for row in rows]


def bar(share: float | None, width: int) -> str:
    """Return a horizontal bar of ``width`` characters that is full at 1 and blank if ``share`` is unknown."""
    if share is None or not math.isfinite(share):
        return " " * width
    filled = _eighths(share, 1.0, width * 8)
    return "".join(GROWING[min(8, max(0, filled - column * 8))] for column in range(width))


def spark(values: Sequence[float], width: int, top: float = 1.0) -> str:
    """Return one row of at most ``width`` vertical bars; values that share a bar are averaged.

    ``top`` is the value of a full bar. A bar without a finite value is blank.
    """
    if not values or width < 1:
        return ""
    size = math.ceil(len(values) / width)
    groups = [values[start : start + size] for start in range(0, len(values), size)]
    means = []
    for group in groups:
        finite = [value for value in group if math.isfinite(value)]
        means.append(sum(finite) / len(finite) if finite else math.nan)
    return "".join(" " if math.isnan(mean) else RISING[max(1, _eighths(mean, top, 8))] for mean in means)


def _eighths(value: float, top: float, most: int) -> int:
    if not (math.isfinite(value) and value > 0 and top > 0):
        return 0
    return min(most, max(1, round(value / top * most)))
