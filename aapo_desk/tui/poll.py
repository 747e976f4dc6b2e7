"""Reading runs without holding up the screen: a timer, a thread that reads what is new, a message that brings it.

``RunSource`` is all the monitor knows of a run, so tests feed it another one. ``StoredRun`` is the real one.
``launch`` is imported where it is used, in the threads: the first frame does not wait for it.
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
SETTLED_SECONDS = 2.0  # the coarsest clock of a file system in use
SECONDS_TO_DRAW = 0.3
CLOCK_SECONDS = 1.0
LONGEST_PAUSE = 2.0


@dataclass(frozen=True)
class About:
    """What never changes about a run, but for its name."""

    name: str
    config: RunConfig


@dataclass(frozen=True)
class Reading:
    """One look at a run. ``about`` and ``log`` are None where they are as before; ``reason``: why it failed.

    ``history``: all there is, in place of what was known. ``more``: the rest of a long run is still to be read.
    ``changed``: something is not as at the last look.
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
    """What is kept of one step besides its numbers."""

    step: int
    histograms: dict[str, Histogram]
    samples: list[Sample]


class RunSource(Protocol):
    """A run as the monitor sees it. Called from threads, one call at a time for each method."""

    def read(self) -> Reading:
        """What is new. Raises StoreError, sqlite3.Error or OSError."""
        ...

    def detail(self, step: int) -> StepDetail:
        """One step's histograms and samples. Raises as ``read``."""
        ...

    def histograms(self, name: str, steps: Sequence[int]) -> dict[int, Histogram | None]:
        """One histogram at many steps; None where there is none. Raises as ``read``."""
        ...


class StoredRun:
    """A run on disk. Of a long one it gives an overview first, and all of it when that has been read."""

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

        # The state first: a trainer writes its last step before it says that it has ended.
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
            self._stamp = None  # what could not be read is still to be read
            raise

    def _written(self) -> bool:
        """Whether anything may have been written to the database since the last call; without opening it."""
        before, stamp, now = self._stamp, self._reader.stamp, time.time()
        # A file system's clock has a resolution: what has just been written may be written again within one of its
        # ticks, so such a stamp proves nothing the next time.
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
        """Read on; the history when all of it is there."""
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
    """A reading has come."""

    def __init__(self, reading: Reading) -> None:
        super().__init__()
        self.reading = reading


class DetailRead(Message):
    """The histograms and samples of a step have come."""

    def __init__(self, detail: StepDetail) -> None:
        super().__init__()
        self.detail = detail


class HistogramsRead(Message):
    """Histograms of many steps have come."""

    def __init__(self, name: str, histograms: dict[int, Histogram | None]) -> None:
        super().__init__()
        self.name = name
        self.histograms = histograms


class ReadFailed(Message):
    """The run could not be read this time."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class RunPoll:
    """Keeps a screen posted about one run: RunRead at intervals, DetailRead for the step it last asked for.

    Of a run that nothing happens to, nothing is posted, and it is looked at less often.
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
        """Read once, unless a reading is under way, and post it whether or not it is new."""
        self._begin(asked=True)

    def _look(self) -> None:
        if time.monotonic() >= self._next_look:
            self._begin(asked=False)

    def _begin(self, asked: bool) -> None:
        if not self._reading:
            self._reading = True
            self._screen.run_worker(lambda: self._read(asked), thread=True, group="read", exit_on_error=False)

    def want(self, step: int) -> None:
        """Ask for a step's detail. While one is being read, only the last step asked for counts."""
        with self._lock:
            self._wanted = step
            if self._detailing:
                return
            self._detailing = True
        self._screen.run_worker(self._read_detail, thread=True, group="detail", exit_on_error=False)

    def want_histograms(self, name: str, steps: Sequence[int]) -> None:
        """Ask for one histogram at many steps, unless such a reading is under way: then ask again when it is there."""
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
            if reading.more:  # what there is is drawn before the rest is read: both at once would take longer for each
                time.sleep(SECONDS_TO_DRAW)
            while reading.more and not worker.is_cancelled:
                reading = self._source.read()
                self._post(reading, asked=False)
        except READ_ERRORS as error:
            self._screen.post_message(ReadFailed(str(error)))
        finally:
            self._reading = False

    def _post(self, reading: Reading, asked: bool) -> None:
        """Post what is new. While a trainer lives also what is not, now and then: the clock goes on."""
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
