"""A run that cannot go on for now waits, paused, and says for what: for room on the disk, or for whoever mends it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from aapo_desk.store import RunDirectory, RunWriter
from aapo_desk.store.full import LITTLE, free, is_full, is_quota, trouble
from aapo_desk.training.control import Control, StopRequested

log = logging.getLogger(__name__)

RETRY_SECONDS = 3.0
"""After so long a write that found no room is tried again."""
POLL_SECONDS = 0.1

T = TypeVar("T")


class NoRoom(StopRequested):
    """The stop was asked for while something found no room: it is lost, and no checkpoint can be kept either."""


@contextmanager
def paused(control: Control, message: str) -> Iterator[None]:
    """The run says that it is paused, and why; behind it, what it said before."""
    before = {key: control.status[key] for key in ("state", "phase", "progress", "message")}
    control.resumed.clear()
    control.say(state="paused", phase="idle", progress=None, message=message)
    try:
        yield
    finally:
        control.say(**before)


def resumed(control: Control, seconds: float | None = None) -> bool:
    """Wait for somebody to resume the run, at the most so long; gives whether they did. Raises StopRequested."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while not control.resumed.wait(POLL_SECONDS):
        control.check()
        if deadline is not None and time.monotonic() >= deadline:
            return False
    control.resumed.clear()
    return True


class Room:
    """Carries out what writes; where the disk is full, the run is paused until it has been done."""

    def __init__(self, run: RunDirectory, control: Control) -> None:
        self._run = run
        self._control = control
        self._waits = False
        self.store: RunWriter | None = None
        """Where a wait is put on record, once it is open."""

    def keep(self, work: Callable[[], T], folder: Path | None = None, needed: int | None = None) -> T:
        """``work``, which writes all of something or nothing; done again for as long as it finds no room.

        ``folder`` is where it writes, by default the run's own; ``needed`` the bytes that it takes, where they are
        known: with less than that free it is not tried. Raises NoRoom where a stop is asked for meanwhile, and
        whatever else ``work`` raises.
        """
        folder = folder or self._run.path
        try:
            return work()
        except Exception as error:
            if self._waits or not is_full(error, folder):
                raise
            self._waits = True
            try:
                return self._wait(work, error, folder, needed)
            except StopRequested:
                raise NoRoom from error
            finally:
                self._waits = False

    def _wait(self, work: Callable[[], T], error: Exception, folder: Path, needed: int | None) -> T:
        self._control.check()
        began, quota = time.monotonic(), is_quota(error, folder)
        said = f"paused: {trouble(error, folder, needed or LITTLE)}"
        log.warning(said)
        facts = {"folder": str(folder), "free": free(folder), "needed": needed or LITTLE}
        told = self._record("disk_full", **facts)
        with paused(self._control, f"{said}; it goes on once there is room, or: aapo-desk stop {self._run.id}"):
            while True:
                asked = resumed(self._control, RETRY_SECONDS)
                if needed is not None and free(folder) < needed and not (asked or quota):
                    continue
                try:
                    done = work()
                    break
                except Exception as again:
                    if not is_full(again, folder):
                        raise
        if not told:
            self._record("disk_full", **facts)
        self._record("unpaused")
        log.info("there is room on the disk again, after %.0f s", time.monotonic() - began)
        return done

    def _record(self, kind: str, **data: object) -> bool:
        """Write an event. Gives whether there was room for it."""
        if self.store is None:
            return False
        try:
            self.store.write_event(kind, self.store.last_step(), **data)
        except Exception as error:
            if not is_full(error, self._run.path):
                raise
            return False
        return True
