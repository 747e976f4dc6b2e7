"""Means over several seeds, with intervals that generalize to other seeds and other problems.

The values are scores, or paired differences of scores, of problems within seeds. Both seeds and problems are random
draws, and several seeds may share a problem (the run's seed decides which problems are held out, unless the source has
its own test split that is used completely). The variance therefore has two parts:

    V(seeds)     the variance clustered by seed, that is, of the seeds' means
    V(problems)  the variance clustered by problem, minus the variance of the single values

Together they are the two-way clustered variance of Cameron, Gelbach and Miller (2011). If each seed has its own
problems, only the first part remains; if the seeds share problems, both do. The two parts are estimated from very
different numbers of draws, so each has its own quantile: Student's t with seeds - 1 degrees of freedom for the first,
the normal quantile for the second. The half-widths add in squares (as in Zou and Donner's method of variance estimates
recovery, 2008). With 3 seeds t is 4.3: few seeds give little certainty, which a bootstrap over 3 seeds would hide. The
interval is never narrower than that of the problems alone (``paired_difference``, ``mean_of_means``), which could
otherwise happen if seeds agree by chance.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from aapo_desk.evaluation import Estimate, mean_of_means, paired_difference
from aapo_desk.evaluation.intervals import Z95

Scores = Mapping[str, float]
"""The value of each problem, by problem id, for one seed."""

T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t, two-sided 95 %, for 1 to 10 degrees of freedom."""


def student(freedom: int) -> float:
    """Return Student's t for a two-sided 95 % interval.

    From 11 degrees of freedom it is computed by Fisher's expansion, to three digits.
    """
    if freedom <= len(T95):
        return T95[freedom - 1]
    z, n = Z95, freedom
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n * n) + third


def accuracy(seeds: Sequence[Scores]) -> Estimate:
    """Return the mean score in 0..1 over seeds, each with equal weight. Raises ValueError for no scores."""
    return _estimate(seeds, mean_of_means(list(_by_problem(seeds).values())), 0.0)


def difference(before: Sequence[Scores], after: Sequence[Scores]) -> tuple[Estimate, int] | None:
    """Return after - before, paired by problem within each seed, and the number of pairs; None if there are none."""
    paired = [
        {problem: new[problem] - old[problem] for problem in old if problem in new}
        for old, new in zip(before, after, strict=True)
    ]
    paired = [one for one in paired if one]
    if not paired:
        return None
    means = [sum(values) / len(values) for values in _by_problem(paired).values()]
    # The paired interval depends only on the differences, so each one is paired with a score of 0.
    problems = paired_difference([0.0] * len(means), means)
    return _estimate(paired, problems, -1.0), sum(map(len, paired))


def _by_problem(seeds: Sequence[Scores]) -> dict[str, list[float]]:
    found = defaultdict(list)
    for scores in seeds:
        for problem, value in scores.items():
            found[problem].append(value)
    return found


def _estimate(seeds: Sequence[Scores], problems: Estimate, least: float) -> Estimate:
    means = [sum(scores.values()) / len(scores) for scores in seeds]
    mean = sum(means) / len(means)
    half = _half(seeds, mean) if len(seeds) > 1 else 0.0
    low = mean - max(half, problems.mean - problems.low)
    high = mean + max(half, problems.high - problems.mean)
    return Estimate(mean, max(least, low), min(1.0, high))


def _half(seeds: Sequence[Scores], mean: float) -> float:
    """Return half the width of the interval, from the two parts of the variance."""
    by_seed: list[float] = []
    single: list[float] = []
    by_problem: dict[str, float] = defaultdict(float)
    for scores in seeds:
        pulls = {problem: (value - mean) / (len(seeds) * len(scores)) for problem, value in scores.items()}
        by_seed.append(sum(pulls.values()))
        single += pulls.values()
        for problem, pull in pulls.items():
            by_problem[problem] += pull
    of_seeds = _variance(by_seed)
    of_problems = max(0.0, _variance(list(by_problem.values())) - _variance(single))
    return math.hypot(student(len(seeds) - 1) * math.sqrt(of_seeds), Z95 * math.sqrt(of_problems))


def _variance(pulls: Sequence[float]) -> float:
    """Return the variance of a mean, from each cluster's contribution to its deviation."""
    count = len(pulls)
    return count / (count - 1) * sum(pull * pull for pull in pulls) if count > 1 else 0.0
