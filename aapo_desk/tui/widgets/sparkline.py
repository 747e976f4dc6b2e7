"""A curve drawn as one line of block characters: a pure function from numbers to text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇"  # without the full block, which would touch the line above


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Return a curve of at most ``width`` characters, each the mean of its share of the values; blank if it has none.

    The lowest bar stands for 0, or for the lowest mean if any is negative; the highest bar for the highest mean.
    """
    count = min(width, len(values))
    edges = [len(values) * place // count for place in range(count + 1)] if count else []
    means = [_mean(values[first:last]) for first, last in pairwise(edges)]
    known = [mean for mean in means if mean is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    return "".join(" " if mean is None else _bar(mean, low, high) for mean in means)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def _bar(value: float, low: float, high: float) -> str:
    return BARS[round((value - low) / (high - low) * (len(BARS) - 1))] if high > low else BARS[0]
