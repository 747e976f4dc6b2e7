"""The monitor's data about a run, with one flat array per metric so that a hundred thousand steps use little memory."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Container, Mapping, Sequence
from itertools import groupby
from statistics import median
from typing import Any

from aapo_desk.evaluation.accuracy import on_one_rule
from aapo_desk.store import Budget, Delta, Event

EVENTS_KEPT = 500
RECENT_STEPS = 20
STEP_SECONDS = ("seconds_rollout", "seconds_reward", "seconds_update")
BEGINNINGS = {"started", "resumed", "forked", "unpaused"}

Metrics = tuple[int, float, dict[str, float | None]]


class History:
    """A run's steps, events and evaluations read so far. Missing values are NaN."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Remove all data."""
        self.steps: array[int] = array("q")
        self.columns: dict[str, array[float]] = {}
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.evaluations: dict[int, dict[str, Any]] = {}
        self.warm_start: dict[str, Any] | None = None
        self._segment_start: float | None = None
        self._last_time: float | None = None
        self._elapsed_before = 0.0

    def replace(self, other: History) -> None:
        """Take over the data of ``other``, which must not be used afterwards."""
        vars(self).update(vars(other))

    def extend(self, delta: Delta) -> None:
        """Add newly read data; a delta with ``reset`` replaces all data."""
        if delta.reset:
            self.clear()
        # Consecutive steps with the same metrics are added column by column, which takes a tenth of the time.
        for names, rows in groupby(delta.metrics, key=lambda row: tuple(row[2])):
            self._append(names, list(rows))
        self._account(delta)
        self.events.extend(delta.events)
        for step, name, data in delta.evaluations:
            if name == "held_out":
                self.evaluations[step] = data
            elif name == "warm_start":  # the evaluation after the warm start, before the first step
                self.warm_start = data

    def _append(self, names: Sequence[str], rows: Sequence[Metrics]) -> None:
        known = len(self.steps)
        self.steps.extend([step for step, _, _ in rows])
        for name, values in zip(names, zip(*[metrics.values() for _, _, metrics in rows], strict=True), strict=True):
            if name not in self.columns:
                self.columns[name] = array("d", [math.nan]) * known
            self.columns[name].extend(_floats(values))
        missing = array("d", [math.nan]) * len(rows)
        for name in self.columns.keys() - set(names):
            self.columns[name].extend(missing)

    def _account(self, delta: Delta) -> None:
        """Add up the training time: from each start to the last step or event before the next start."""
        marks = [(when, False) for _, when, _ in delta.metrics]
        marks += [(event.time, event.kind in BEGINNINGS) for event in delta.events]
        for when, begins in sorted(marks):
            if self._segment_start is None or self._last_time is None:
                self._segment_start = self._last_time = when
            elif begins:
                self._elapsed_before += self._last_time - self._segment_start
                self._segment_start = when
            self._last_time = max(self._last_time, when)

    def elapsed(self, now: float | None) -> float | None:
        """Return the seconds trained, over all resumes and without pauses; None before the first step or event.

        ``now`` is the current unix time while the run is training, else None.
        """
        if self._segment_start is None or self._last_time is None:
            return None
        end = self._last_time if now is None else max(now, self._last_time)
        return self._elapsed_before + end - self._segment_start

    @property
    def last_step(self) -> int:
        return self.steps[-1] if self.steps else 0

    @property
    def first_step(self) -> int:
        return self.steps[0] if self.steps else 0

    def column(self, key: str) -> Sequence[float]:
        return self.columns.get(key, array("d"))

    def index(self, step: int) -> int | None:
        """Return the index of a step in the columns, or None if there is no such step."""
        place = bisect_left(self.steps, step)
        return place if place < len(self.steps) and self.steps[place] == step else None

    def value(self, key: str, step: int) -> float | None:
        """Return a metric's value at a step; None if it is missing or not finite."""
        column, place = self.columns.get(key), self.index(step)
        if column is None or place is None:
            return None
        return column[place] if math.isfinite(column[place]) else None

    def step_seconds(self) -> float | None:
        """Return the median duration of the last ``RECENT_STEPS`` steps in seconds; None if it is unknown."""
        columns = [self.columns[key][-RECENT_STEPS:] for key in STEP_SECONDS if key in self.columns]
        sums = [total for row in zip(*columns, strict=True) if math.isfinite(total := sum(row))]
        return median(sums) if sums else None

    def remaining(self, steps: int, evaluate_every: int, evaluated: bool, budget: Budget | None = None) -> float | None:
        """Estimate the seconds that the rest of the run takes, including evaluations; None if it is unknown."""
        per_step = self.step_seconds()
        if per_step is None or not steps:
            return None
        if budget and budget.spent and self.last_step:
            spent = per_step if budget.unit == "seconds" else budget.spent / self.last_step
            left = math.ceil(max(0.0, budget.limit - budget.spent) / spent) if spent else 0
            steps = min(steps, self.last_step + left)
        seconds = per_step * max(0, steps - self.last_step)
        if evaluated:
            due = _evaluations_due(self.last_step, steps, evaluate_every, self.evaluations)
            seconds += due * max((_seconds(data) for data in self.evaluations.values()), default=0.0)
        return seconds

    def base(self) -> Mapping[str, Any] | None:
        """Return the base model's evaluation, scored by the same rule as the newest one; None if there is none."""
        return self._base_and_newest().get(0)

    def latest(self) -> tuple[int, Mapping[str, Any]] | None:
        """Return the step and the data of the tuned model's newest evaluation; None if there is none."""
        step = max(self.evaluations, default=0)
        return (step, self._base_and_newest()[step]) if step else None

    def _base_and_newest(self) -> Mapping[int, Mapping[str, Any]]:
        wanted = {0, max(self.evaluations, default=0)} & self.evaluations.keys()
        return on_one_rule({step: self.evaluations[step] for step in wanted})


def _evaluations_due(done: int, steps: int, every: int, have: Container[int]) -> int:
    between = max(0, (steps - 1) // every - done // every) if every else 0
    return between + (steps not in have)


def _seconds(data: dict[str, Any]) -> float:
    value = data.get("seconds")
    return float(value) if isinstance(value, int | float) else 0.0


def _floats(values: Sequence[float | None]) -> array[float]:
    try:
        return array("d", values)  # type: ignore[arg-type]
    except TypeError:  # some value is None
        return array("d", [math.nan if value is None else value for value in values])
