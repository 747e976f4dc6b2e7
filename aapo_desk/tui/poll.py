"""Reading runs without holding up the screen: a timer, a thread that reads what is new, a message that brings it.

``RunSource`` is all the monitor knows of a run, so tests feed it another one. ``StoredRun`` is the real one.
``launch`` is imported where it is used, in the threads: the first frame does not wait for it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from textual.message import Message
from textual.screen import Screen

from aapo_desk.config import RunConfig
from aapo_desk.store import Delta, Histogram, RunDirectory, RunReader, Sample, StoreError

READ_ERRORS = (StoreError, sqlite3.Error, OSError)
LOG_LINES = 300


@dataclass(frozen=True)
class About:
    """What never changes about a run, but for its name."""

    name: str
    config: RunConfig


@dataclass(frozen=True)
class Reading:
    """One look at a run. ``about`` and ``log`` are None where they are as before; ``reason``: why it failed."""

    state: str
    status: dict[str, Any] = field(default_factory=dict)
    delta: Delta = field(default_factory=Delta)
    about: About | None = None
    log: Sequence[str] | None = None
    reason: str | None = None


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


class StoredRun:
    """A run on disk."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._reader = RunReader(run)
        self._about: About | None = None
        self._log_stamp: tuple[int, int] | None = None
        self._reason: tuple[str, str | None] = ("", None)

    def read(self) -> Reading:
        about = None
        if self._about is None:
            about = self._about = About(self.run.name, self.run.read_config())
        from aapo_desk import launch

        # The state first: a trainer writes its last step before it says that it has ended.
        state = launch.state(self.run)
        if state != self._reason[0]:
            self._reason = (state, launch.reason(self.run))
        delta = self._reader.poll()
        return Reading(state, self.run.read_status(), delta, about, self._new_log(), self._reason[1])

    def detail(self, step: int) -> StepDetail:
        return StepDetail(step, self._reader.histograms(step), self._reader.samples(step))

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


class ReadFailed(Message):
    """The run could not be read this time."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class RunPoll:
    """Keeps a screen posted about one run: RunRead at intervals, DetailRead for the step it last asked for."""

    def __init__(self, screen: Screen[Any], source: RunSource, seconds: float = 0.5) -> None:
        self._screen = screen
        self._source = source
        self._seconds = seconds
        self._reading = False
        self._wanted: int | None = None
        self._detailing = False
        self._lock = threading.Lock()

    def start(self) -> None:
        self._screen.set_interval(self._seconds, self.tick)
        self.tick()

    def tick(self) -> None:
        """Read once, unless a reading is under way."""
        if not self._reading:
            self._reading = True
            self._screen.run_worker(self._read, thread=True, group="read", exit_on_error=False)

    def want(self, step: int) -> None:
        """Ask for a step's detail. While one is being read, only the last step asked for counts."""
        with self._lock:
            self._wanted = step
            if self._detailing:
                return
            self._detailing = True
        self._screen.run_worker(self._read_detail, thread=True, group="detail", exit_on_error=False)

    def _read(self) -> None:
        try:
            self._screen.post_message(RunRead(self._source.read()))
        except READ_ERRORS as error:
            self._screen.post_message(ReadFailed(str(error)))
        finally:
            self._reading = False

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
