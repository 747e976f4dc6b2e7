"""Confidence intervals for accuracies and their differences."""

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
    """Return the mean of scores in 0..1 with Wilson's score interval (1927), which is valid near 0 and 1 as well.

    For fractional scores it is wider than needed. Raises ValueError if there are no scores.
    """
    if not scores:
        raise ValueError("no scores")
    return _wilson(sum(scores) / len(scores), len(scores))


def _wilson(p: float, n: float) -> Estimate:
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(max(p * (1 - p), 0.0) / n + Z95**2 / (4 * n * n))
    # At a mean of 0 or 1 the bound equals the mean; rounding must not push it beyond.
    return Estimate(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def mean_of_means(scores: Sequence[Sequence[float]]) -> Estimate:
    """Return the mean over problems of each problem's mean score in 0..1, with a 95 % interval.

    The samples of one problem are correlated, so the problem is the sampling unit. The interval is Wilson's at the
    effective number of samples: p (1 - p) divided by the between-problem variance of the mean (as Korn and Graubard,
    1998, for surveys). That number is clamped between the number of problems and the number of samples; with one 0/1
    score per problem the result equals ``proportion``. Raises ValueError if there are no problems or one has no scores.
    """
    if not scores or not all(scores):
        raise ValueError("no scores")
    means = [sum(one) / len(one) for one in scores]
    n, p = len(means), sum(means) / len(means)
    between = sum((mean - p) ** 2 for mean in means)
    if n == 1 or p <= 0 or p >= 1:
        return _wilson(p, n)
    effective = p * (1 - p) * n * (n - 1) / between if between else math.inf
    return _wilson(p, min(max(effective, n), sum(map(len, scores))))


def paired_difference(before: Sequence[float], after: Sequence[float]) -> Estimate:
    """Return the mean of after - before, paired by problem, with a 95 % interval. Scores or mean scores are in 0..1.

    The interval is Bonett and Price's adjusted Wald interval for paired proportions (2012): one pair of each kind of
    disagreement is added, so that its width does not become 0 if no pair disagrees. Raises ValueError if there are no
    pairs.
    """
    n = len(before)
    if not n:
        raise ValueError("no pairs")
    differences = [b - a for a, b in zip(before, after, strict=True)]
    centre = sum(differences) / (n + 2)
    # The two added pairs contribute a square of 1 each. For scores of 0 and 1 this is Bonett and Price's formula.
    squares = (sum(d * d for d in differences) + 2) / (n + 2)
    half = Z95 * math.sqrt((squares - centre**2) / (n + 2))
    return Estimate(sum(differences) / n, max(-1.0, centre - half), min(1.0, centre + half))


def unpaired_difference(before: Estimate, after: Estimate) -> Estimate:
    """Return after - before for two proportions over different problems, with a 95 % interval.

    The interval is Newcombe's hybrid score interval (1998, method 10), built from the two Wilson intervals.
    """
    difference = after.mean - before.mean
    low = difference - math.hypot(after.mean - after.low, before.high - before.mean)
    high = difference + math.hypot(after.high - after.mean, before.mean - before.low)
    return Estimate(difference, max(-1.0, low), min(1.0, high))
