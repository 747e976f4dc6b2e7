"""The results of a study so far: each arm's curve, its final accuracy, and its difference to the first arm."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from aapo_desk.evaluation import Estimate
from aapo_desk.evaluation.accuracy import as_wrong
from aapo_desk.launch import LIVE
from aapo_desk.store import CurveReader, RunDirectory, RunReader, StoreError
from aapo_desk.store.unscorable import UNSCORABLE_AS, WRONG, unscorable_notes
from aapo_desk.studies import over_seeds
from aapo_desk.studies.arms import ENOUGH_STEPS
from aapo_desk.studies.comparison import DEFAULT_METRIC, LETTERS, SMOOTHING
from aapo_desk.studies.held_out import NAME, SIDES, Side
from aapo_desk.studies.over_seeds import Scores
from aapo_desk.studies.running import Member, is_at_work, members
from aapo_desk.studies.study import Study
from aapo_desk.studies.track import Band, Track, band, read_track

NOT_QUEUED = "not queued"
READ_ERRORS = (StoreError, sqlite3.Error, OSError)


@dataclass(frozen=True)
class SeedRun:
    """An arm's run with one seed.

    ``before`` and ``after`` hold the scores of the base and the tuned model by side, if there are any. ``state`` is
    that of the queue entry; ``reason`` tells why the run failed or cannot be read. ``unscorable`` holds, by side, how
    many answers of the base and the tuned model could not be scored; their scores are 0.
    """

    seed: int
    name: str
    state: str
    reason: str
    run: RunDirectory | None
    track: Track | None
    before: Mapping[Side, Scores]
    after: Mapping[Side, Scores]
    unscorable: Mapping[Side, tuple[int, int]] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """True if its trainer is running."""
        return self.state in LIVE

    @property
    def steps(self) -> int | None:
        """The planned number of steps; None if something other than their number ends the run."""
        planned = self.run.read_settings().get("run", {}).get("steps") if self.run else None
        return planned if isinstance(planned, int) and planned < ENOUGH_STEPS else None

    @property
    def finished(self) -> bool:
        return self.state == "finished" and self.track is not None and self.track.steps > 0


@dataclass(frozen=True)
class Contrast:
    """An arm's difference to the first arm: an ``estimate`` from ``pairs`` pairs of scores in ``seeds`` seeds."""

    estimate: Estimate
    pairs: int
    seeds: int

    @property
    def seen(self) -> bool:
        """True if the interval excludes zero."""
        return not self.estimate.low <= 0.0 <= self.estimate.high

    @property
    def words(self) -> str:
        """The verdict as text: better, worse, or no difference seen."""
        return ("better" if self.estimate.mean > 0 else "worse") if self.seen else "no difference seen"


@dataclass(frozen=True)
class Outcome:
    """The held-out accuracy of an arm's finished runs; None if there are none.

    ``against`` is the difference to the first arm. Unscorable answers count as wrong; ``notes`` give their number.
    """

    base: Estimate | None
    tuned: Estimate | None
    gain: Estimate | None
    against: Contrast | None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class ArmFindings:
    """The results of one arm. ``sides`` maps greedy and sampled to the outcome of the finished runs."""

    letter: str
    label: str
    runs: Sequence[SeedRun]
    band: Band
    sides: Mapping[Side, Outcome]

    @property
    def finished(self) -> list[Track]:
        return [one.track for one in self.runs if one.finished and one.track]

    def mean(self, name: str) -> float | None:
        """Return the mean of a track's attribute over the finished runs; None if there are none.

        ``name`` is steps, tokens, teaching or teaching_group; or seconds or completions, whose last values count.
        """
        values = [getattr(track, name) for track in self.finished]
        numbers = [value[-1] if isinstance(value, Sequence) else value for value in values if value is not None]
        return sum(numbers) / len(numbers) if numbers else None


@dataclass(frozen=True)
class Findings:
    """The current results of a study. ``at_work`` tells whether a process is working on it."""

    study: Study
    metric: str
    arms: Sequence[ArmFindings]
    at_work: bool

    @property
    def runs(self) -> list[SeedRun]:
        return [run for arm in self.arms for run in arm.runs]

    @property
    def done(self) -> int:
        """The number of runs that have finished."""
        return sum(run.finished for run in self.runs)

    @property
    def failed(self) -> list[SeedRun]:
        """The runs that will not finish without the user's intervention."""
        return [run for run in self.runs if run.state in ("failed", "stopped", "removed")]

    @property
    def left(self) -> int:
        """The number of runs that have not ended yet."""
        return len(self.runs) - self.done - len(self.failed)


class StudyReader:
    """A reader of a study that can be called repeatedly and skips unchanged runs. It is not thread-safe."""

    def __init__(self, study: Study, metric: str = DEFAULT_METRIC) -> None:
        self.study = study
        self.metric = metric
        self._known: dict[str, tuple[object, SeedRun]] = {}

    def read(self) -> Findings:
        """Return the current results. The ``reason`` of a run that cannot be read says so."""
        known = members(self.study)
        runs = [
            [self._run(known.get(self.study.run_name(arm, seed)), self.study.run_name(arm, seed), seed)
             for seed in self.study.seeds]
            for arm in self.study.arms
        ]  # fmt: skip
        arms = [
            ArmFindings(LETTERS[number], arm.label, runs[number], self._band(runs[number]),
                        {side: _outcome(runs[0] if number else None, runs[number], side) for side in SIDES})
            for number, arm in enumerate(self.study.arms)
        ]  # fmt: skip
        return Findings(self.study, self.metric, arms, is_at_work(self.study))

    def _band(self, runs: Sequence[SeedRun]) -> Band:
        """Return the band of the finished runs or, if there are none yet, of the first run that has steps."""
        begun = [run.track for run in runs if run.track and run.track.steps]
        finished = [run.track for run in runs if run.finished and run.track]
        return band(finished or begun[:1], self.study.budget.kind, SMOOTHING)

    def _run(self, member: Member | None, name: str, seed: int) -> SeedRun:
        if member is None or member.run is None:
            state, reason = (member.state, member.reason) if member else (NOT_QUEUED, "")
            return SeedRun(seed, name, state, reason, None, None, {}, {})
        stamp = (member, RunReader(member.run).stamp)
        if name not in self._known or self._known[name][0] != stamp:
            self._known[name] = (stamp, _read(member.state, member.reason, member.run, name, seed, self.metric))
        return self._known[name][1]


def _read(state: str, reason: str, run: RunDirectory, name: str, seed: int, metric: str) -> SeedRun:
    try:
        track = read_track(run, metric)
        evaluations = CurveReader(run).first_and_last_evaluation(NAME)
    except READ_ERRORS as error:
        return SeedRun(seed, name, "failed", f"cannot be read: {error}", run, None, {}, {})
    last = max(evaluations, default=0)
    before = _scores(evaluations.get(0))
    tuned = evaluations[last] if last and state == "finished" else None
    counts: dict[Side, tuple[int, int]] = {
        side: (_unscorable(evaluations.get(0), side), _unscorable(tuned, side)) for side in SIDES
    }
    return SeedRun(seed, name, state, reason, run, track, before, _scores(tuned), counts)


def _scores(row: Mapping[str, Any] | None) -> dict[Side, Scores]:
    """Return each problem's score by side, from the raw scores, so that runs of older versions are counted alike."""
    if row is None:
        return {}
    return {side: dict(zip(row["ids"], as_wrong(row[side]["scores"]), strict=True)) for side in SIDES}


def _unscorable(row: Mapping[str, Any] | None, side: Side) -> int:
    return sum(score is None for score in row[side]["scores"]) if row else 0


def _outcome(first: Sequence[SeedRun] | None, runs: Sequence[SeedRun], side: Side) -> Outcome:
    ended = [run for run in runs if run.after.get(side)]
    gain = over_seeds.difference([run.before.get(side, {}) for run in ended], [run.after[side] for run in ended])
    base = [run.before[side] for run in runs if run.before.get(side)]
    return Outcome(
        over_seeds.accuracy(base) if base else None,
        over_seeds.accuracy([run.after[side] for run in ended]) if ended else None,
        gain[0] if gain else None,
        _contrast(first, ended, side) if first else None,
        [*_notes("base", runs, side), *_notes("tuned", ended, side)],
    )


def _notes(who: Literal["base", "tuned"], runs: Sequence[SeedRun], side: Side) -> list[str]:
    """Return notes on the unscorable answers of all runs of an arm together."""
    index = ("base", "tuned").index(who)
    count = sum(run.unscorable[side][index] for run in runs if side in run.unscorable)
    answers = sum(len((run.before if who == "base" else run.after).get(side, {})) for run in runs)
    return unscorable_notes({who: {"unscorable": count, UNSCORABLE_AS: WRONG}}, answers)


def _contrast(first: Sequence[SeedRun], ended: Sequence[SeedRun], side: Side) -> Contrast | None:
    """Return the difference to the first arm over the seeds that both have finished.

    Within a seed both arms get the same problems and the same judge, so the scores are paired.
    """
    baseline = {run.seed: run.after[side] for run in first if run.after.get(side)}
    both = [run for run in ended if run.seed in baseline]
    found = over_seeds.difference([baseline[run.seed] for run in both], [run.after[side] for run in both])
    return Contrast(*found, len(both)) if found else None
