"""Training the queue's runs one after another, each to its end; a failed run does not block the others."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from pydantic import ValidationError

from aapo_desk import launch
from aapo_desk.config import ConfigError, RunConfig
from aapo_desk.health import standing
from aapo_desk.store import RunDirectory, RunReader, StoreError, check_name, list_runs, runs_folder
from aapo_desk.studies.queue.entries import Record, again, change, changing, records, unreadable
from aapo_desk.studies.queue.process import asked_to_stop, only_one

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_LOOKS_AT_OTHERS = 2.0
READ_ERRORS = (StoreError, sqlite3.Error, OSError)


class Stop(Protocol):
    """The number of requests to stop so far.

    After one, the current run writes a checkpoint and stops; after two, it is killed.
    """

    @property
    def count(self) -> int: ...

    def wait(self, seconds: float) -> None:
        """Wait until the next request, at most this many seconds."""


class NeverStop:
    """A ``Stop`` that never requests anything."""

    count = 0

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


def work_off(
    tell: Callable[[str], None], *, study: str | None = None, stop: Stop | None = None, command: Sequence[str] = ()
) -> bool:
    """Train the waiting entries of the queue, or of one study, until none is left or a stop is requested.

    An interrupted entry (by a stop, a crash, a restart of the machine) continues from its last checkpoint; one that
    crashes twice without progress has failed. The supervisor waits for runs that train on this machine outside the
    queue, and while its own run is paused.

    Args:
        tell: Called with a line for each thing that happens.
        study: The id of the only study to work on; by default the whole queue.
        stop: Requests to stop.
        command: The trainer's command, as in ``launch.start``.

    Returns whether all runs that it worked on have finished. Raises LaunchError if another supervisor is running,
    OSError if the queue cannot be written.
    """
    with only_one():
        for words in unreadable():
            tell(f"ignored: {words}")
        return _Supervisor(tell, study, stop or NeverStop(), command).work()


class _Supervisor:
    def __init__(self, tell: Callable[[str], None], study: str | None, stop: Stop, command: Sequence[str]) -> None:
        self._tell = tell
        self._study = study
        self._stop = stop
        self._command = command
        self._answered = 0

    def work(self) -> bool:
        ends: dict[str, str] = {}
        while not self._asked() and (record := self._next()):
            if not self._wait_for_others(record):
                break
            with changing():
                begun, words = self._begin(record)
            if begun is None:  # The entry was removed in the meantime.
                continue
            if words:  # Not while the queue is locked, since ``tell`` may be slow.
                self._tell(f"{_called(begun)} {words}")
            if not begun.settled:
                begun = self._follow(begun)
            ends[record.id] = self._say_end(begun)
        if ends:
            counts = {state: list(ends.values()).count(state) for state in dict.fromkeys(ends.values())}
            self._tell("queue: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
        return all(state == "finished" for state in ends.values()) and not self._asked()

    def _next(self) -> Record | None:
        """Return the first entry that is waiting, interrupted or training; None if there is none."""
        return next((one for one in records(self._study) if not one.settled and one.entry().state != "removed"), None)

    def _asked(self) -> int:
        return self._stop.count or int(asked_to_stop())

    # Before

    def _wait_for_others(self, record: Record) -> bool:
        """Wait until no other run trains on this machine. Returns False if a stop was requested meanwhile."""
        announced = ""
        while other := _other_run(record):
            if self._asked():
                return False
            if other.id != announced:
                announced = other.id
                self._tell(f"waiting for run {other.name}, which is {launch.state(other)}")
            self._stop.wait(SECONDS_BETWEEN_LOOKS_AT_OTHERS)
        return True

    def _begin(self, record: Record) -> tuple[Record | None, str]:
        """Start, resume or find the entry's run. Returns the changed record and a message.

        The record is settled if its run has ended or cannot be trained, and None if the entry was removed. It must be
        called while the queue is locked.
        """
        now = again(record)
        if now is None:
            return None, ""
        run = now.directory
        if run is None:
            return self._start(now)
        current = launch.state(run)
        if current in launch.LIVE:
            return change(now, begun=True), f"is {current}: run {run.id}"
        if current in ("finished", "failed"):  # It ended while no supervisor was running.
            return change(now, begun=True, settled=True), ""
        return self._resume(now, run, current)

    def _start(self, record: Record) -> tuple[Record, str]:
        if record.run:  # A supervisor was killed while it created the run's folder.
            shutil.rmtree(runs_folder() / record.run, ignore_errors=True)
        try:
            config = RunConfig.model_validate(record.config)
            launch.check(config)
            name = _free(record.name)
            run = launch.start(config, name, self._command, note=lambda run: _note(record, run))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            why = f"its configuration is not valid for this version of aapo-desk: {where}: {first['msg']}"
            return change(record, run=None, settled=True, failure=why), ""
        except (ConfigError, launch.LaunchError, OSError) as error:
            why = f"not started: {'; '.join(str(error).splitlines())}"
            return change(record, run=None, settled=True, failure=why), ""
        taken = " (without its name, which another run has taken)" if name != record.name else ""
        words = f"started as run {run.id}{taken}; watch it with: aapo-desk watch {run.id}"
        return change(record, run=run.id, begun=True), words

    def _resume(self, record: Record, run: RunDirectory, current: str) -> tuple[Record, str]:
        """Resume a run from its last checkpoint, unless it has crashed again without progress."""
        step = _last_step(run)
        if current == "crashed" and record.crashed_at is not None and step <= record.crashed_at:
            why = f"crashed again without progress after step {record.crashed_at}: {launch.reason(run)}"
            return change(record, begun=True, settled=True, failure=why), ""
        try:
            launch.resume(run, self._command)
        except (ConfigError, launch.LaunchError) as error:
            if launch.state(run) in launch.LIVE:  # Another process has resumed it first.
                return record, ""
            return change(record, begun=True, settled=True, failure=f"cannot be resumed: {error}"), ""
        crashed_at = step if current == "crashed" else record.crashed_at
        words = f"resumed ({current} after step {step}) as run {run.id}"
        return change(record, begun=True, crashed_at=crashed_at), words

    # While it trains

    def _follow(self, record: Record) -> Record:
        """Wait until the run has ended. The returned record is settled, unless the run is to be resumed later."""
        run = record.directory
        previous = ""
        while run and (current := launch.state(run)) in launch.LIVE:
            if current != previous and "paused" in (current, previous):
                self._tell(_paused(record, run) if current == "paused" else f"{_called(record)} is {current} again")
            previous = current
            self._stop.wait(SECONDS_BETWEEN_LOOKS)
            self._answer(run)
        if run and record.directory and current in ("stopped", "crashed") and (current == "crashed" or self._asked()):
            return record
        with changing():
            now = again(record)
            return change(now, settled=True) if now else record

    def _answer(self, run: RunDirectory) -> None:
        """Carry out the next request to stop that has not been answered yet."""
        if self._asked() <= self._answered:
            return
        self._answered += 1
        with contextlib.suppress(launch.LaunchError):  # The run has just ended by itself.
            if self._answered == 1:
                launch.request(run, "stop")
                self._tell("stopping the run after a checkpoint; stop again to kill it at once")
            else:
                launch.kill(run)
                self._tell("killed the run; the work since the last checkpoint is lost")

    # After

    def _say_end(self, record: Record) -> str:
        entry = record.entry()
        words = entry.state
        if entry.reason:
            words += f": {entry.reason}"
        elif entry.state == "interrupted":
            words += "; resume it with: aapo-desk queue run" if self._asked() else f": {_why(record)}"
        elif record.directory:
            words += f" after step {_last_step(record.directory)}"
        self._tell(f"{_called(record)} {words}")
        return entry.state


def _note(record: Record, run: RunDirectory) -> None:
    change(record, run=run.id)


def _free(name: str | None) -> str | None:
    """Return the name, or None if another run has taken it since the entry was added."""
    try:
        if name is not None:
            check_name(name)
    except ConfigError:
        return None
    return name


def _called(record: Record) -> str:
    return f"{record.id} {record.name or record.preset}"


def _why(record: Record) -> str:
    run = record.directory
    return (launch.reason(run) if run else None) or "its trainer is gone"


def _paused(record: Record, run: RunDirectory) -> str:
    """Return a message that the run waits for the user, with the active alarms, which may be the cause."""
    try:
        alarms = [alarm.title for alarm in standing((event.kind, event.data) for event in RunReader(run).poll().events)]
    except READ_ERRORS:
        alarms = []
    alarm = f" (alarm: {'; '.join(alarms)})" if alarms else ""
    return f"{_called(record)} is paused{alarm}; the queue waits. Resume it with: aapo-desk resume {run.id}"


def _last_step(run: RunDirectory) -> int:
    """Return the last recorded step of a run."""
    try:
        last = RunReader(run).last_metrics()
    except READ_ERRORS:
        last = None
    return last[0] if last else int(run.read_status().get("step") or 0)


def _other_run(record: Record) -> RunDirectory | None:
    """Return a run other than this entry's that trains on this machine; None if there is none."""
    here = socket.gethostname()
    for run in list_runs():
        if run.id != record.run and launch.state(run) in launch.LIVE and run.read_status().get("host", here) == here:
            return run
    return None
