"""One metric of a run over its steps, training time and tokens, reduced to a number of points that can be drawn."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aapo_desk.store import CurveReader, RunDirectory, read_json

Axis = Literal["step", "time", "tokens"]
AXES: tuple[Axis, ...] = ("step", "time", "tokens")

MOST_POINTS = 1000
BEGINNINGS = {"started", "resumed", "forked"}
TOKENS = "completion_tokens"


@dataclass(frozen=True)
class Points:
    """A curve of at most ``MOST_POINTS`` points, each at the end of a range of steps. Missing values are NaN.

    ``seconds`` is the training time and ``tokens`` the tokens of the policy's completions, both since the run's start;
    ``values`` are the means over each range, ``smooth`` the means of the exponential moving average.
    """

    steps: Sequence[float]
    seconds: Sequence[float]
    tokens: Sequence[float]
    values: Sequence[float]
    smooth: Sequence[float]

    def xs(self, axis: Axis) -> Sequence[float]:
        return {"step": self.steps, "time": self.seconds, "tokens": self.tokens}[axis]

    def reach(self, axis: Axis) -> float | None:
        """Return the last x; None if the curve has no steps or its x is unknown."""
        xs = self.xs(axis)
        return xs[-1] if len(xs) and math.isfinite(xs[-1]) else None

    def at(self, axis: Axis, x: float) -> float | None:
        """Return the smoothed value at the last point up to ``x``; None outside the curve or if there is no value."""
        xs = self.xs(axis)
        place = bisect_right(xs, x) - 1
        if place < 0 or self.reach(axis) is None or x > xs[-1] or not math.isfinite(self.smooth[place]):
            return None
        return self.smooth[place]


class TrainingClock:
    """A sum of the training time: from each start to the last step or event before the next start."""

    def __init__(self) -> None:
        self._before = 0.0
        self._began: float | None = None
        self._last = 0.0

    def read(self, steps: Iterable[float], events: Iterable[tuple[float, bool]]) -> list[float]:
        """Return the seconds trained at the end of each step.

        ``steps`` are Unix times; ``events`` are Unix times with whether the event is a start. Both hold what is new
        since the last call, in any order. At equal times a step counts before an event.
        """
        seconds = []
        for when, is_event, begins in sorted(
            [(at, False, False) for at in steps] + [(at, True, b) for at, b in events]
        ):
            if self._began is None:
                self._began = self._last = when
            elif begins:
                self._before += self._last - self._began
                self._began = when
            self._last = max(self._last, when)
            if not is_event:
                seconds.append(self._before + self._last - self._began)
        return seconds


class Curve:
    """An incremental reader of one metric of a run at a time. It is not thread-safe."""

    def __init__(self, run: RunDirectory) -> None:
        self.reader = CurveReader(run)
        self.completions = completions_a_step(read_json(run.config) or {})
        self._generation: int | None = None
        self._forget()

    def _forget(self) -> None:
        self.keys: dict[str, None] = {}
        self.steps: array[float] = array("d")
        self.seconds: array[float] = array("d")
        self.tokens: array[float] = array("d")
        self._metric = ""
        self._values: array[float] = array("d")
        self._clock = TrainingClock()
        self._event = 0
        self._made: tuple[object, Points] | None = None

    def read(self, metric: str) -> None:
        """Read the new steps of a metric. Raises StoreError, sqlite3.Error or OSError."""
        generation = self.reader.generation()
        if generation != self._generation:
            self._forget()
            self._generation = generation
        last = int(self.steps[-1]) if len(self.steps) else 0
        self.keys |= dict.fromkeys(self.reader.keys(last))
        if metric != self._metric:
            self._values = _column(value for step, _, value in self.reader.rows([metric]) if step <= last)
            if len(self._values) != len(self.steps):  # The history was rewound in the meantime.
                self._forget()
                last = 0
            self._metric = metric
        self._extend(self.reader.rows([metric, TOKENS], last))

    def _extend(self, rows: Iterable[tuple[int, float, float | None, float | None]]) -> None:
        new = list(rows)
        marks = self.reader.marks(self._event)
        self._event = marks[-1][0] if marks else self._event
        self.seconds.extend(
            self._clock.read((row[1] for row in new), ((at, kind in BEGINNINGS) for _, at, kind in marks))
        )
        total = self.tokens[-1] if len(self.tokens) else 0.0
        for step, _, value, tokens in new:
            total += (tokens or 0.0) * (math.nan if self.completions is None else self.completions)
            self.steps.append(step)
            self.tokens.append(total)
            self._values.append(math.nan if value is None else value)

    def points(self, smoothing: float) -> Points:
        """Return the curve of the metric read last.

        ``smoothing`` is the weight of the previous average, from 0 to below 1.
        """
        wanted = (self._generation, self._metric, len(self.steps), smoothing)
        if self._made is None or self._made[0] != wanted:
            self._made = (wanted, self._thin(exponential_mean(self._values, smoothing)))
        return self._made[1]

    def _thin(self, smooth: Sequence[float]) -> Points:
        count = len(self.steps)
        stretch = max(1, -(-count // MOST_POINTS))
        starts = range(0, count, stretch)
        ends = [min(start + stretch, count) - 1 for start in starts]
        return Points(
            [self.steps[end] for end in ends],
            [self.seconds[end] for end in ends],
            [self.tokens[end] for end in ends],
            [_mean(self._values[start : start + stretch]) for start in starts],
            [_mean(smooth[start : start + stretch]) for start in starts],
        )


def completions_a_step(config: Mapping[str, Any]) -> int | None:
    """Return the policy's completions per step by an unvalidated configuration; None if it lacks the settings."""
    rollout = config.get("rollout") or {}
    prompts, group = (rollout.get(name) for name in ("prompts_per_step", "group_size"))
    return prompts * group if isinstance(prompts, int) and isinstance(group, int) else None


def exponential_mean(values: Iterable[float], smoothing: float) -> array[float]:
    """Return the exponential moving average at each value, corrected for its start at zero.

    Missing (non-finite) values leave it unchanged.
    """
    result = array("d")
    total = weight = 0.0
    for value in values:
        if math.isfinite(value):
            total = smoothing * total + (1 - smoothing) * value
            weight = smoothing * weight + (1 - smoothing)
        result.append(total / weight if weight else math.nan)
    return result


def _column(values: Iterable[float | None]) -> array[float]:
    return array("d", [math.nan if value is None else value for value in values])


def _mean(values: Iterable[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
