"""Bars of eighth blocks: pure functions from numbers to rows of characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

RISING = " ▁▂▃▄▅▆▇█"
GROWING = " ▏▎▍▌▋▊▉█"


def fit_bins(counts: Sequence[int], width: int) -> tuple[list[int], int]:
    """Bins and columns a bin so that a histogram fits ``width``: neighbours are merged evenly, or bins widened.

    Counts are kept whole: the sum of the bins is the sum of ``counts``.
    """
    if not counts or width < 1:
        return [], 1
    if len(counts) <= width:
        return list(counts), width // len(counts)
    merge = math.ceil(len(counts) / width)
    return [sum(counts[start : start + merge]) for start in range(0, len(counts), merge)], 1


def bars(values: Sequence[float], height: int, top: float | None = None) -> list[str]:
    """Columns rising from below: ``height`` rows, the uppermost first. A value above zero shows at least an eighth."""
    top = max(values, default=0) if top is None else top
    eighths = [_eighths(value, top, height * 8) for value in values]
    rows = range(height - 1, -1, -1)
    return ["".join(RISING[min(8, max(0, filled - row * 8))] for filled in eighths) for row in rows]


def bar(share: float | None, width: int) -> str:
    """A bar growing to the right, ``width`` characters: full at 1."""
    if share is None or not math.isfinite(share):
        return " " * width
    filled = _eighths(share, 1.0, width * 8)
    return "".join(GROWING[min(8, max(0, filled - column * 8))] for column in range(width))


def spark(values: Sequence[float], width: int, top: float = 1.0) -> str:
    """One row of columns, at most ``width``: the last values, averaged where there are more. Missing ones are blank."""
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
