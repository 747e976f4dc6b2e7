"""A curve in one line of blocks: a pure function from numbers to characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇"  # no full block: it would grow into the line above


def sparkline(values: Sequence[float | None], width: int) -> str:
    """At most ``width`` characters, each the mean of what falls into it, a blank where that is nothing.

    The lowest bar is 0, or the lowest value where some are negative; the highest bar is the highest value.
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
