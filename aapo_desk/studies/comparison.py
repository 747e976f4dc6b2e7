"""A comparison of up to six runs."""

from __future__ import annotations

import difflib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aapo_desk import launch
from aapo_desk.config import ConfigError, Problem
from aapo_desk.store import RunDirectory, StoreError
from aapo_desk.studies.curve import Axis, Curve, Points
from aapo_desk.studies.held_out import NAME, FinalEvaluation, final_evaluation

LETTERS = "ABCDEF"
MOST_RUNS = len(LETTERS)
DEFAULT_METRIC = "reward"
SMOOTHING = 0.8
READ_ERRORS = (StoreError, sqlite3.Error, OSError)
NOTHING = Points([], [], [], [], [])


@dataclass(frozen=True)
class Totals:
    """A run's totals: steps, seconds trained, and tokens and number of the policy's completions."""

    steps: int
    seconds: float | None
    tokens: int | None
    completions: int | None


@dataclass(frozen=True)
class Entry:
    """One run of a comparison. ``config`` maps dotted paths to settings; ``problem`` tells why it cannot be read."""

    letter: str
    run: RunDirectory
    name: str
    state: str
    pinned: bool
    config: Mapping[str, Any]
    totals: Totals
    final: FinalEvaluation | None
    points: Points
    problem: str = ""


@dataclass(frozen=True)
class Standing:
    """A run's smoothed value at ``x``, and its difference to the baseline's value at ``at``, if both have one there."""

    value: float | None
    x: float | None
    difference: float | None
    at: float | None


@dataclass(frozen=True)
class Comparison:
    """The compared runs with one metric. ``metrics`` lists all metrics that any of them has."""

    metric: str
    smoothing: float
    metrics: Sequence[str]
    entries: Sequence[Entry]

    @property
    def baseline(self) -> Entry:
        """The first pinned run, or else the first run."""
        return next((entry for entry in self.entries if entry.pinned), self.entries[0])

    def differing(self) -> dict[str, list[Any]]:
        """Return the settings that differ between the runs: by path, each run's value, None if it lacks the setting."""
        paths = dict.fromkeys(path for entry in self.entries for path in entry.config)
        lines = {path: [entry.config.get(path) for entry in self.entries] for path in paths}
        return {path: values for path, values in lines.items() if any(value != values[0] for value in values)}

    def standing(self, entry: Entry, axis: Axis, x: float | None = None) -> Standing:
        """Return a run's value and its difference to the baseline at ``x``.

        Without ``x``, the value is that at the run's end, and the difference that at the last x that both runs have.
        """
        own, base = entry.points, self.baseline.points
        where = own.reach(axis) if x is None else x
        value = None if where is None else own.at(axis, where)
        ends = [end for end in (own.reach(axis), base.reach(axis)) if end is not None]
        at = (min(ends) if len(ends) == 2 else None) if x is None else x
        if entry is self.baseline or at is None:
            return Standing(value, where, None, None)
        mine, theirs = own.at(axis, at), base.at(axis, at)
        if mine is None or theirs is None:
            return Standing(value, where, None, None)
        return Standing(value, where, mine - theirs, at)


class Comparer:
    """A reader of several runs that can be called repeatedly and caches what it has read. It is not thread-safe."""

    def __init__(self, runs: Sequence[RunDirectory]) -> None:
        """Raise ConfigError for no runs, more than ``MOST_RUNS``, or the same run twice."""
        check_runs(runs)
        self.runs = list(runs)
        self._configs = [run.read_settings() for run in runs]
        self._curves = [Curve(run) for run in runs]

    def read(self, metric: str, smoothing: float) -> Comparison:
        """Return the current comparison. An entry that cannot be read has its ``problem`` set."""
        entries = [self._entry(number, metric, smoothing) for number in range(len(self.runs))]
        metrics = list(dict.fromkeys(key for curve in self._curves for key in curve.keys))
        return Comparison(metric, smoothing, metrics, entries)

    def _entry(self, number: int, metric: str, smoothing: float) -> Entry:
        run, config, curve = self.runs[number], self._configs[number], self._curves[number]
        final, problem, points = None, "", NOTHING
        state = "unknown"
        try:
            state = launch.state(run)
            curve.read(metric)
            points = curve.points(smoothing)
            final = final_evaluation(curve.reader.first_and_last_evaluation(NAME), config)
        except READ_ERRORS as error:
            problem = str(error)
        meta = run.read_meta()
        name, pinned = str(meta.get("name", run.id)), bool(meta.get("pinned"))
        return Entry(
            LETTERS[number],
            run,
            name,
            state,
            pinned,
            dict(_flat(config)),
            _totals(points, curve.completions),
            final,
            points,
            problem,
        )


def check_runs(runs: Sequence[RunDirectory]) -> None:
    """Raise ConfigError for no runs, more than ``MOST_RUNS``, or the same run twice."""
    if not runs or len(runs) > MOST_RUNS:
        raise ConfigError(Problem("RUN", f"1 to {MOST_RUNS} runs can be compared; choose that many", len(runs)))
    for number, run in enumerate(runs):
        if run in runs[:number]:
            raise ConfigError(Problem("RUN", "this run is given twice; remove one", run.name))


def check_metric(metric: str, known: Sequence[str]) -> None:
    """Raise ConfigError for a metric that no run has. Before the first step (``known`` empty), accept any name."""
    if known and metric not in known:
        close = difflib.get_close_matches(metric, known, n=1, cutoff=0.5)
        message = "no run has this metric" if close else f"no run has this metric; available are {', '.join(known)}"
        raise ConfigError(Problem("--metric", message, metric, nearest=close[0] if close else None))


def _totals(points: Points, completions: int | None) -> Totals:
    steps = int(points.reach("step") or 0)
    tokens = points.reach("tokens")
    return Totals(
        steps,
        points.reach("time"),
        None if tokens is None else round(tokens),
        None if completions is None else completions * steps,
    )


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings by dotted path. Lists are not split, since their items have no names to compare them by."""
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
