"""Pauses of a run that cannot continue for now: a full disk, or a reward that fails again and again.

The run reports what it waits for and continues once that is available or the user resumes it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from aapo_desk.config import RewardConfig
from aapo_desk.rewards import Completion, FailingReward, RewardError, RewardPool, Score
from aapo_desk.store import RunDirectory, RunWriter
from aapo_desk.store.full import LITTLE, free, is_full, is_quota, trouble
from aapo_desk.training.control import Control, StopRequested

log = logging.getLogger(__name__)

PAUSES = "rewards_failing"
IN_A_ROW = 10
"""The run pauses after this many answers in a row that one reward function could not score."""
MOST_TEXT = 500
"""The event keeps this many characters of the completion."""
RETRY_SECONDS = 3.0
"""Seconds after which a write that failed on a full disk is tried again."""
POLL_SECONDS = 0.1

T = TypeVar("T")


class NoRoom(StopRequested):
    """A stop was requested while a write waited for disk space: it is lost, and no checkpoint can be saved either."""


@contextmanager
def paused(control: Control, message: str) -> Iterator[None]:
    """Show the run as paused with ``message`` inside the context, and restore the previous status after it."""
    before = {key: control.status[key] for key in ("state", "phase", "progress", "message")}
    control.resumed.clear()
    control.say(state="paused", phase="idle", progress=None, message=message)
    try:
        yield
    finally:
        control.say(**before)


def resumed(control: Control, seconds: float | None = None) -> bool:
    """Wait until the user resumes the run, for at most ``seconds``. Returns whether they did. Raises StopRequested."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while not control.resumed.wait(POLL_SECONDS):
        control.check()
        if deadline is not None and time.monotonic() >= deadline:
            return False
    control.resumed.clear()
    return True


class Room:
    """Runs writes to the disk; if it is full, pauses the run until the write has succeeded."""

    def __init__(self, run: RunDirectory, control: Control) -> None:
        self._run = run
        self._control = control
        self._waits = False
        self.store: RunWriter | None = None
        """The store in which a pause is recorded; None until the store is open."""

    def keep(self, work: Callable[[], T], folder: Path | None = None, needed: int | None = None) -> T:
        """Return what ``work`` returns, repeating it as long as the disk is full.

        ``work`` must write everything or nothing. ``folder`` is where it writes, by default the run's own; ``needed``
        is the number of bytes that it takes, if known: with less than that free it is not tried again. Raises NoRoom if
        a stop is requested meanwhile, and whatever else ``work`` raises.
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
        advice = f"the run continues once there is room; to stop it instead: aapo-desk stop {self._run.id}"
        with paused(self._control, f"{said}; {advice}"):
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
        log.info("the disk has room again, after %.0f s", time.monotonic() - began)
        return done

    def _record(self, kind: str, **data: object) -> bool:
        """Write an event. Returns whether there was room for it."""
        if self.store is None:
            return False
        try:
            self.store.write_event(kind, self.store.last_step(), **data)
        except Exception as error:
            if not is_full(error, self._run.path):
                raise
            return False
        return True


class PausingPool(RewardPool):
    """A run's rewards, which pause it if they fail. After a pause, files are reloaded and completions scored again.

    If the files have not changed, the run continues without these scores, and pauses again after as many failures.
    """

    def __init__(self, rewards: Sequence[RewardConfig], control: Control, store: RunWriter) -> None:
        super().__init__(rewards)
        self._control = control
        self._store = store
        self._paths = dict(zip(self.names, (reward.name.rpartition(":")[0] for reward in rewards), strict=True))
        self._failed_as: dict[str, Any] | None = None
        self.reloaded: Callable[[], None] = lambda: None
        """Called after the reward files have been reloaded."""

    def score(self, completions: Sequence[Completion], patience: int | None = IN_A_ROW) -> list[Score]:
        """Score as ``RewardPool.score`` does, but pause the run if a reward fails. Raises StopRequested."""
        failed: dict[str, Any] | None = None
        while True:
            try:
                if failed is not None:
                    self.reload()
                    self.reloaded()
                    patience = IN_A_ROW if self.definition != failed else None
                return super().score(completions, patience)
            except FailingReward as failing:
                self._pause(self._words(failing), failing)
            except RewardError as error:
                if failed is None:
                    raise
                self._pause(str(error), None)
            failed = self._failed_as

    def _words(self, failing: FailingReward) -> str:
        path = self._paths[failing.name]
        who = f"{failing.name} in {path}" if path else failing.name
        return f"the reward {who} failed on {failing.count} answers in a row, the last: {failing.error}"

    def _pause(self, said: str, failing: FailingReward | None) -> None:
        """Wait until the run is resumed."""
        self._failed_as = self.definition
        run, step = self._store.run, self._store.last_step()
        log.warning("paused: %s", said)
        if failing:
            example = {"count": failing.count, "completion": failing.completion[:MOST_TEXT]}
            error = f"{failing.name}: {failing.error}"
            self._store.write_event(PAUSES, step, function=failing.name, error=error, **example)
        advice = f"fix it, then: aapo-desk resume {run.id} (without a fix, the run continues without these scores)"
        with paused(self._control, f"paused: {said}; {advice}"):
            resumed(self._control)
        if failing:
            self._store.write_event("unpaused", step)

    def _wait(self) -> None:
        super()._wait()
        self._control.check()
