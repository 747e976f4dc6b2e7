"""Intervals that say how much a number of problems can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def proportion(scores: Sequence[float]) -> Estimate:
    """The mean of scores in 0..1 with Wilson's score interval (1927), which holds near 0 and 1 as well.

    For scores between 0 and 1 it is wider than needed. Raises ValueError for no scores.
    """
    n = len(scores)
    if not n:
        raise ValueError("no scores")
    p = sum(scores) / n
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(max(p * (1 - p), 0.0) / n + Z95**2 / (4 * n * n))
    # At 0 and 1 the bound is the mean itself; rounding must not push it past.
    return Estimate(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def paired_difference(before: Sequence[float], after: Sequence[float]) -> Estimate:
    """The mean of after - before, problem by problem, with a 95 % interval.

    The interval is Bonett and Price's adjusted Wald interval for paired proportions (2012): one pair of each kind of
    disagreement is added, so that it does not shrink to nothing where none disagree. Raises ValueError for no pairs.
    """
    n = len(before)
    if not n:
        raise ValueError("no pairs")
    differences = [b - a for a, b in zip(before, after, strict=True)]
    mean = sum(differences) / n
    gained = (sum(max(d, 0.0) for d in differences) + 1) / (n + 2)
    lost = (sum(max(-d, 0.0) for d in differences) + 1) / (n + 2)
    centre = gained - lost
    half = Z95 * math.sqrt((gained + lost - centre**2) / (n + 2))
    return Estimate(mean, max(-1.0, centre - half), min(1.0, centre + half))


def unpaired_difference(before: Estimate, after: Estimate) -> Estimate:
    """after - before of two proportions over different problems, with a 95 % interval.

    Newcombe's hybrid score interval (1998, method 10), made of the two Wilson intervals.
    """
    difference = after.mean - before.mean
    low = difference - math.hypot(after.mean - after.low, before.high - before.mean)
    high = difference + math.hypot(after.high - after.mean, before.mean - before.low)
    return Estimate(difference, max(-1.0, low), min(1.0, high))
