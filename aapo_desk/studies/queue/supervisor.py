"""Working the queue off: one run after another, each followed to its end, a failed one holding nobody up."""

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
    """How often it was asked to end. Once: the run that trains writes a checkpoint and stops; twice: at once."""

    @property
    def count(self) -> int: ...

    def wait(self, seconds: float) -> None:
        """Until it is asked again, at most so long."""


class NeverStop:
    """Nobody asks."""

    count = 0

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


def work_off(
    tell: Callable[[str], None], *, study: str | None = None, stop: Stop | None = None, command: Sequence[str] = ()
) -> bool:
    """Train what waits in the queue, or of a study, until nothing is left or it is asked to stop.

    ``tell`` gets a line for each thing that happens. An entry that was cut off (by a stop, a crash, a restart of the
    machine) goes on from its last checkpoint; one that crashes twice without getting further has failed. It waits for
    runs that train here outside the queue, and while its own run is paused. ``command`` is the trainer's, as in
    ``launch.start``. Gives whether all that it worked off finished.
    Raises LaunchError where another supervisor is at work, OSError where the queue cannot be written.
    """
    with only_one():
        for words in unreadable():
            tell(f"left out: {words}")
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
            if begun is None:  # removed in this moment
                continue
            if words:  # not while the queue is held: who is told may be slow
                self._tell(f"{_called(begun)} {words}")
            if not begun.settled:
                begun = self._follow(begun)
            ends[record.id] = self._say_end(begun)
        if ends:
            counts = {state: list(ends.values()).count(state) for state in dict.fromkeys(ends.values())}
            self._tell("the queue: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
        return all(state == "finished" for state in ends.values()) and not self._asked()

    def _next(self) -> Record | None:
        """The first that waits, was cut off or trains."""
        return next((one for one in records(self._study) if not one.settled and one.entry().state != "removed"), None)

    def _asked(self) -> int:
        return self._stop.count or int(asked_to_stop())

    # Before

    def _wait_for_others(self, record: Record) -> bool:
        """Until no other run trains on this machine; False where it was asked to stop meanwhile."""
        told = ""
        while other := _other_run(record):
            if self._asked():
                return False
            if other.id != told:
                told = other.id
                self._tell(f"waits for run {other.name}, which is {launch.state(other)}")
            self._stop.wait(SECONDS_BETWEEN_LOOKS_AT_OTHERS)
        return True

    def _begin(self, record: Record) -> tuple[Record | None, str]:
        """Have the entry's run train, and words for that; settled where it has ended or cannot train.

        None where the entry was removed. Call it while the queue is held.
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
        if current in ("finished", "failed"):  # while nobody looked
            return change(now, begun=True, settled=True), ""
        return self._resume(now, run, current)

    def _start(self, record: Record) -> tuple[Record, str]:
        if record.run:  # killed while it made the run's folder
            shutil.rmtree(runs_folder() / record.run, ignore_errors=True)
        try:
            config = RunConfig.model_validate(record.config)
            launch.check(config)
            name = _free(record.name)
            run = launch.start(config, name, self._command, note=lambda run: _note(record, run))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            why = f"its configuration is none of this version of aapo-desk: {where}: {first['msg']}"
            return change(record, run=None, settled=True, failure=why), ""
        except (ConfigError, launch.LaunchError, OSError) as error:
            why = f"not started: {'; '.join(str(error).splitlines())}"
            return change(record, run=None, settled=True, failure=why), ""
        taken = " (another run has taken its name since)" if name != record.name else ""
        words = f"starts: run {run.id}{taken}; watch it with: aapo-desk watch {run.id}"
        return change(record, run=run.id, begun=True), words

    def _resume(self, record: Record, run: RunDirectory, current: str) -> tuple[Record, str]:
        """From its last checkpoint, where it has got further than when it crashed before."""
        step = _last_step(run)
        if current == "crashed" and record.crashed_at is not None and step <= record.crashed_at:
            why = f"crashed again without getting further than step {record.crashed_at}: {launch.reason(run)}"
            return change(record, begun=True, settled=True, failure=why), ""
        try:
            launch.resume(run, self._command)
        except (ConfigError, launch.LaunchError) as error:
            if launch.state(run) in launch.LIVE:  # somebody else was quicker
                return record, ""
            return change(record, begun=True, settled=True, failure=f"cannot go on: {error}"), ""
        crashed_at = step if current == "crashed" else record.crashed_at
        return change(record, begun=True, crashed_at=crashed_at), f"goes on, {current} after step {step}: run {run.id}"

    # While it trains

    def _follow(self, record: Record) -> Record:
        """Until the run has ended; settled, unless it is to go on later."""
        run = record.directory
        said = ""
        while run and (current := launch.state(run)) in launch.LIVE:
            if current != said and "paused" in (current, said):
                self._tell(_paused(record, run) if current == "paused" else f"{_called(record)} is {current} again")
            said = current
            self._stop.wait(SECONDS_BETWEEN_LOOKS)
            self._answer(run)
        if run and record.directory and current in ("stopped", "crashed") and (current == "crashed" or self._asked()):
            return record
        with changing():
            now = again(record)
            return change(now, settled=True) if now else record

    def _answer(self, run: RunDirectory) -> None:
        """What was asked since the last look, one at a time."""
        if self._asked() <= self._answered:
            return
        self._answered += 1
        with contextlib.suppress(launch.LaunchError):  # it has just ended by itself
            if self._answered == 1:
                launch.request(run, "stop")
                self._tell("asked the run to write a checkpoint and stop; asked again, it ends at once")
            else:
                launch.kill(run)
                self._tell("ended at once; what came after the last checkpoint is lost")

    # After

    def _say_end(self, record: Record) -> str:
        entry = record.entry()
        words = entry.state
        if entry.reason:
            words += f": {entry.reason}"
        elif entry.state == "interrupted":
            words += "; it goes on with: aapo-desk queue run" if self._asked() else f": {_why(record)}"
        elif record.directory:
            words += f" after step {_last_step(record.directory)}"
        self._tell(f"{_called(record)} {words}")
        return entry.state


def _note(record: Record, run: RunDirectory) -> None:
    change(record, run=run.id)


def _free(name: str | None) -> str | None:
    """The name, or none where another run has taken it since the entry was added."""
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
    """That it waits for the user, and what alarm may be the cause."""
    try:
        alarms = [alarm.title for alarm in standing((event.kind, event.data) for event in RunReader(run).poll().events)]
    except READ_ERRORS:
        alarms = []
    alarm = f" (alarm: {'; '.join(alarms)})" if alarms else ""
    return f"{_called(record)} is paused{alarm}; the queue waits. On with it: aapo-desk resume {run.id}"


def _last_step(run: RunDirectory) -> int:
    """The last step that was recorded."""
    try:
        last = RunReader(run).last_metrics()
    except READ_ERRORS:
        last = None
    return last[0] if last else int(run.read_status().get("step") or 0)


def _other_run(record: Record) -> RunDirectory | None:
    """A run other than this entry's that trains on this machine."""
    here = socket.gethostname()
    for run in list_runs():
        if run.id != record.run and launch.state(run) in launch.LIVE and run.read_status().get("host", here) == here:
            return run
    return None
