"""A run's course for a study: a metric at each step, what it has used up, and how much of the data taught."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from aapo_desk.store import CurveReader, RunDirectory
from aapo_desk.studies.curve import exponential_mean

PHASES = ("seconds_rollout", "seconds_reward", "seconds_update")
SPENT = (*PHASES, "sampled_completions", "tokens_per_second", "teaching_group", "teaching")
MOST_POINTS = 400


@dataclass(frozen=True)
class Track:
    """A metric at each step, with the seconds trained (without evaluations) and completions sampled up to it.

    ``tokens``: all sampled tokens, including the reference's. ``teaching_group``, ``teaching``: the mean share of rows
    with a nonzero advantage, from the group's own differences alone and with the margin; None if the algorithm has no
    such term.
    """

    values: Sequence[float]
    seconds: Sequence[float]
    completions: Sequence[float]
    tokens: float
    teaching_group: float | None
    teaching: float | None

    @property
    def steps(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Band:
    """A metric's mean over seeds with the lowest and highest value, over the budget that the arms share (``xs``).

    ``seeds`` is the number of seeds.
    """

    xs: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    seeds: int


def read_track(run: RunDirectory, metric: str) -> Track:
    """Read a run's track. Raises StoreError, sqlite3.Error or OSError."""
    rows = list(CurveReader(run).rows([metric, *SPENT]))
    columns = [[math.nan if value is None else float(value) for value in column] for column in zip(*rows, strict=True)]
    if not columns:
        return Track([], [], [], 0.0, None, None)
    _, _, values, rollout, reward, update, completions, rate, group, teaching = columns
    return Track(
        values,
        list(accumulate(map(sum, zip(rollout, reward, update, strict=True)))),
        list(accumulate(completions)),
        sum(speed * seconds for speed, seconds in zip(rate, rollout, strict=True)),
        _mean(group),
        _mean(teaching),
    )


def band(tracks: Sequence[Track], axis: str, smoothing: float) -> Band:
    """Return the band over the steps that all tracks have. ``axis`` is steps, seconds or completions."""
    count = min((track.steps for track in tracks), default=0)
    stretch = max(1, -(-count // MOST_POINTS))
    places = [min(start + stretch, count) - 1 for start in range(0, count, stretch)]
    curves = [exponential_mean(track.values, smoothing) for track in tracks]
    xs = [[float(place + 1) for place in range(count)] if axis == "steps" else getattr(one, axis) for one in tracks]
    at = [[curve[place] for curve in curves] for place in places]
    return Band(
        [sum(x[place] for x in xs) / len(xs) for place in places],
        [sum(values) / len(values) for values in at],
        [_nan_or(min, values) for values in at],
        [_nan_or(max, values) for values in at],
        len(tracks) if count else 0,
    )


def _nan_or(choose: Callable[[Sequence[float]], float], values: Sequence[float]) -> float:
    return math.nan if any(map(math.isnan, values)) else choose(values)


def _mean(values: Iterable[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None
