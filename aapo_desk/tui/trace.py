"""A metric over a run of any length, reduced to so few numbers that it can be drawn at each refresh."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from itertools import chain

SMOOTHING = 0.8
SMOOTHED_OVER = 40  # steps with a noticeable weight in the exponential mean: 0.8 ** 40 is 1 in 7500
MOST = 1024  # buckets; a wide terminal has about 400 columns of dots


class Trace:
    """The mean, lowest and highest value of a metric in each of up to ``MOST`` equal buckets of steps.

    A bucket without values has NaN. A run of up to ``MOST`` steps has one step per bucket and loses nothing. ``steps``
    holds the first step of each bucket, and for the last bucket the newest step.
    """

    def __init__(self) -> None:
        self._start_over(1)

    def _start_over(self, size: int) -> None:
        self.size = size
        self.steps: array[int] = array("q")
        self.means: array[float] = array("d")
        self.lows: array[float] = array("d")
        self.highs: array[float] = array("d")
        self._taken = 0
        self._newest = 0

    def update(self, steps: Sequence[int], values: Sequence[float]) -> None:
        """Add the values that are new since the last call; start over if the history was replaced."""
        count = min(len(steps), len(values))
        size = 1
        while count > MOST * size:
            size *= 2
        replaced = count < self._taken or (self._taken and steps[self._taken - 1] != self._newest)
        if size != self.size or replaced:
            self._start_over(size)
        if count == self._taken:
            return
        whole = self._taken // size
        for column in (self.steps, self.means, self.lows, self.highs):
            del column[whole:]
        for start in range(whole * size, count, size):
            self.steps.append(steps[start])
            self._add(values[start : min(start + size, count)])
        self.steps[-1] = self._newest = steps[count - 1]
        self._taken = count

    def _add(self, chunk: Sequence[float]) -> None:
        total = sum(chunk)
        if total - total != 0.0:  # some value is NaN or infinite
            chunk = [value for value in chunk if math.isfinite(value)]
            total = sum(chunk)
        self.means.append(total / len(chunk) if chunk else math.nan)
        self.lows.append(min(chunk, default=math.nan))
        self.highs.append(max(chunk, default=math.nan))

    @property
    def empty(self) -> bool:
        return not any(mean - mean == 0.0 for mean in self.means)

    def smooth(self) -> array[float]:
        """Return the exponential mean at each bucket, corrected for its start at zero; NaN for an empty bucket."""
        keep = SMOOTHING**self.size
        total = weight = 0.0
        smooth = array("d")
        for mean in self.means:
            if mean - mean != 0.0:
                smooth.append(math.nan)
                continue
            total = keep * total + (1 - keep) * mean
            weight = keep * weight + 1 - keep
            smooth.append(total / weight)
        return smooth

    def spread(self) -> tuple[Sequence[int], Sequence[float]]:
        """Return the steps and values to draw as points: each value, or the lowest and highest of each bucket."""
        if self.size == 1:
            return self.steps, self.means
        twice = array("q", [step for step in self.steps for _ in (self.lows, self.highs)])
        return twice, array("d", chain.from_iterable(zip(self.lows, self.highs, strict=True)))


def smoothed_at(values: Sequence[float], place: int) -> float | None:
    """Return the exponential mean at index ``place``; None if there is no finite value up to it."""
    total = weight = 0.0
    for value in values[max(0, place + 1 - SMOOTHED_OVER) : place + 1]:
        if math.isfinite(value):
            total = SMOOTHING * total + (1 - SMOOTHING) * value
            weight = SMOOTHING * weight + 1 - SMOOTHING
    return total / weight if weight else None
