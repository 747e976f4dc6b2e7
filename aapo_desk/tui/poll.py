"""Reading of runs without blocking the screen: a timer starts a thread that reads new data and posts it as a message.

The monitor reads a run only through ``RunSource``, so tests can replace it. ``StoredRun`` is the real implementation.
``launch`` is imported in the threads that use it, so that the first frame does not wait for it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from textual.message import Message
from textual.screen import Screen
from textual.worker import get_current_worker

from aapo_desk.config import RunConfig
from aapo_desk.store import Delta, Histogram, RunDirectory, RunReader, Sample, StoreError
from aapo_desk.tui.history import RECENT_STEPS, History
from aapo_desk.tui.labels import LIVE_STATES

READ_ERRORS = (StoreError, sqlite3.Error, OSError)
LOG_LINES = 300
OVERVIEW_STEPS = 1500  # three times the dot columns of a wide terminal
STEPS_A_LOOK = 4000
SETTLED_SECONDS = 2.0  # the coarsest time resolution of a common file system
SECONDS_TO_DRAW = 0.3
CLOCK_SECONDS = 1.0
LONGEST_PAUSE = 2.0


@dataclass(frozen=True)
class About:
    """The parts of a run that are read once: its configuration, which never changes, and its name."""

    name: str
    config: RunConfig


@dataclass(frozen=True)
class Reading:
    """The result of reading a run once. ``about`` and ``log`` are None if unchanged; ``reason`` says why a run failed.

    ``history``: the whole history, which replaces what was read before. ``more``: the rest of a long run is not read
    yet. ``changed``: something differs from the previous reading.
    """

    state: str
    status: dict[str, Any] = field(default_factory=dict)
    delta: Delta = field(default_factory=Delta)
    about: About | None = None
    log: Sequence[str] | None = None
    reason: str | None = None
    machine: Sequence[dict[str, Any]] = ()
    """New snapshots of the machine, oldest first."""
    history: History | None = None
    more: bool = False
    changed: bool = True


@dataclass(frozen=True)
class StepDetail:
    """The histograms and samples stored for one step."""

    step: int
    histograms: dict[str, Histogram]
    samples: list[Sample]


class RunSource(Protocol):
    """The monitor's interface to a run. Called from threads, with at most one call at a time for each method."""

    def read(self) -> Reading:
        """Return what is new since the last call. Raises StoreError, sqlite3.Error or OSError."""
        ...

    def detail(self, step: int) -> StepDetail:
        """Return a step's histograms and samples. Raises the same errors as ``read``."""
        ...

    def histograms(self, name: str, steps: Sequence[int]) -> dict[int, Histogram | None]:
        """Return one histogram at many steps; None for steps without it. Raises the same errors as ``read``."""
        ...


class StoredRun:
    """A run on disk. For a long run it first returns an overview, and the whole history once that has been read."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._reader = RunReader(run)
        self._about: About | None = None
        self._log_stamp: tuple[int, int] | None = None
        self._snapshot = 0
        self._reason: tuple[str, str | None] = ("", None)
        self._stamp: object = None
        self._seen: tuple[object, ...] = ()
        self._looked = False
        self._filling: History | None = None

    def read(self) -> Reading:
        about = None
        if self._about is None:
            about = self._about = About(self.run.name, self.run.read_config())
        from aapo_desk import launch

        # Read the state before the database: a trainer writes its last step first and its final state after it.
        state = launch.state(self.run)
        if state != self._reason[0]:
            self._reason = (state, launch.reason(self.run))
        delta, history, machine = self._read_database()
        log, status = self._new_log(), self.run.read_status()
        seen = (self._reason, status)
        changed = bool(about or log is not None or history or not delta.empty or seen != self._seen)
        self._seen = seen
        more = self._filling is not None
        return Reading(state, status, delta, about, log, self._reason[1], machine, history, more, changed)

    def _read_database(self) -> tuple[Delta, History | None, list[dict[str, Any]]]:
        written = self._written()
        delta, history = Delta(), None
        try:
            if self._filling is not None:
                history = self._fill()
            elif written:
                delta = self._news()
            return delta, history, self._machine() if written else []
        except READ_ERRORS:
            self._stamp = None  # forget the stamp, so that the next call reads the database again
            raise

    def _written(self) -> bool:
        """Return whether the database may have been written to since the last call, without opening it."""
        before, stamp, now = self._stamp, self._reader.stamp, time.time()
        # A file system's timestamps have a limited resolution. A file written just now may be written again without a
        # new timestamp, so a stamp counts only once it is older than that resolution.
        settled = all(now - written / 1e9 > SETTLED_SECONDS for _, _, written in stamp)
        self._stamp = stamp if settled else None
        return stamp != before

    def _news(self) -> Delta:
        if not self._looked:
            span = self._reader.span()
            self._looked = span is not None
            if span is not None and span[1] - span[0] > 2 * OVERVIEW_STEPS:
                self._filling = History()
                return self._reader.overview(OVERVIEW_STEPS, RECENT_STEPS)
        return self._reader.poll()

    def _fill(self) -> History | None:
        """Read the next part of a long run. Return the whole history once it is complete, else None."""
        assert self._filling is not None
        delta = self._reader.poll(STEPS_A_LOOK)
        self._filling.extend(delta)
        if delta.more:
            return None
        whole, self._filling = self._filling, None
        return whole

    @property
    def reader(self) -> RunReader:
        return self._reader

    def detail(self, step: int) -> StepDetail:
        return StepDetail(step, self._reader.histograms(step), self._reader.samples(step))

    def histograms(self, name: str, steps: Sequence[int]) -> dict[int, Histogram | None]:
        return self._reader.histograms_of(name, steps)

    def _machine(self) -> list[dict[str, Any]]:
        rows = self._reader.system(self._snapshot)
        if rows:
            self._snapshot = rows[-1][0]
        return [data for _, data in rows]

    def _new_log(self) -> Sequence[str] | None:
        try:
            stat = self.run.log.stat()
        except OSError:
            return None
        stamp = (stat.st_mtime_ns, stat.st_size)
        if stamp == self._log_stamp:
            return None
        self._log_stamp = stamp
        return self._reader.log_tail(LOG_LINES)


class RunRead(Message):
    """The run has been read."""

    def __init__(self, reading: Reading) -> None:
        super().__init__()
        self.reading = reading


class DetailRead(Message):
    """The histograms and samples of a step have been read."""

    def __init__(self, detail: StepDetail) -> None:
        super().__init__()
        self.detail = detail


class HistogramsRead(Message):
    """One histogram has been read at many steps."""

    def __init__(self, name: str, histograms: dict[int, Histogram | None]) -> None:
        super().__init__()
        self.name = name
        self.histograms = histograms


class ReadFailed(Message):
    """The run could not be read; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class RunPoll:
    """A poller that posts a run's data to a screen: RunRead at intervals, and DetailRead for the last step asked for.

    While nothing changes in a run, nothing is posted and it is read less often.
    """

    def __init__(self, screen: Screen[Any], source: RunSource, seconds: float = 0.5) -> None:
        self._screen = screen
        self._source = source
        self._seconds = seconds
        self._pause = seconds
        self._next_look = 0.0
        self._last_post = 0.0
        self._reading = False
        self._wanted: int | None = None
        self._detailing = False
        self._reading_histograms = False
        self._lock = threading.Lock()

    def start(self) -> None:
        self._screen.set_interval(self._seconds, self._look)
        self.tick()

    def tick(self) -> None:
        """Read once and post the result even if nothing changed; do nothing if a read is in progress."""
        self._begin(asked=True)

    def _look(self) -> None:
        if time.monotonic() >= self._next_look:
            self._begin(asked=False)

    def _begin(self, asked: bool) -> None:
        if not self._reading:
            self._reading = True
            self._screen.run_worker(lambda: self._read(asked), thread=True, group="read", exit_on_error=False)

    def want(self, step: int) -> None:
        """Request a step's detail. Of the requests made while a step is being read, only the last one is answered."""
        with self._lock:
            self._wanted = step
            if self._detailing:
                return
            self._detailing = True
        self._screen.run_worker(self._read_detail, thread=True, group="detail", exit_on_error=False)

    def want_histograms(self, name: str, steps: Sequence[int]) -> None:
        """Request one histogram at many steps. Ignored while such a read is in progress; then ask again after it."""
        if not self._reading_histograms:
            self._reading_histograms = True
            self._screen.run_worker(
                lambda: self._read_histograms(name, steps), thread=True, group="histograms", exit_on_error=False
            )

    def _read_histograms(self, name: str, steps: Sequence[int]) -> None:
        try:
            found = self._source.histograms(name, steps)
        except READ_ERRORS as error:
            self._screen.post_message(ReadFailed(str(error)))
        else:
            self._screen.post_message(HistogramsRead(name, found))
        finally:
            self._reading_histograms = False

    def _read(self, asked: bool) -> None:
        worker = get_current_worker()
        try:
            reading = self._source.read()
            self._post(reading, asked)
            if reading.more:  # let the screen draw the overview first: drawing and reading at once would slow both
                time.sleep(SECONDS_TO_DRAW)
            while reading.more and not worker.is_cancelled:
                reading = self._source.read()
                self._post(reading, asked=False)
        except READ_ERRORS as error:
            self._screen.post_message(ReadFailed(str(error)))
        finally:
            self._reading = False

    def _post(self, reading: Reading, asked: bool) -> None:
        """Post a reading if it changed or was asked for; for a live run also once a second, for the elapsed time."""
        now = time.monotonic()
        live = reading.state in LIVE_STATES
        self._pause = self._seconds if reading.changed or live else min(LONGEST_PAUSE, 2 * self._pause)
        self._next_look = now + self._pause - self._seconds / 2
        if reading.changed or asked or (live and now - self._last_post >= CLOCK_SECONDS):
            self._last_post = now
            self._screen.post_message(RunRead(reading))

    def _read_detail(self) -> None:
        while (step := self._next_detail()) is not None:
            try:
                self._screen.post_message(DetailRead(self._source.detail(step)))
            except READ_ERRORS as error:
                self._screen.post_message(ReadFailed(str(error)))

    def _next_detail(self) -> int | None:
        with self._lock:
            step, self._wanted = self._wanted, None
            self._detailing = step is not None
            return step
