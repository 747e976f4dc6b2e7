"""The trainer's side of the run directory: its status, and the commands that other processes leave for it."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from aapo_desk.store import RunDirectory, overwrite, planned_budget, read_command, write_atomically
from aapo_desk.store.full import is_full
from aapo_desk.store.locks import LockHeldError, hold

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
POLL_SECONDS = 0.25
LOCK_PATIENCE_SECONDS = 2.0


class StopRequested(Exception):
    """A stop of the run was requested. The step in progress is dropped; nothing of it has been applied."""


class AlreadyRunning(RuntimeError):
    """Another trainer holds the run's lock."""


@contextmanager
def locked(run: RunDirectory) -> Iterator[IO[str]]:
    """Hold the run's lock inside the context. Raises AlreadyRunning if another trainer holds it."""
    try:
        with hold(run.lock, LOCK_PATIENCE_SECONDS) as file:
            yield file
    except LockHeldError:
        raise AlreadyRunning(f"another trainer is already running run {run.id}") from None


@dataclass
class Control:
    """Keeps status.json current and collects commands, in a thread of its own.

    The main thread reads the flags between steps; ``check`` also ends a step in progress when a stop was requested.
    """

    run: RunDirectory
    steps: int
    status: dict[str, Any] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    pause: threading.Event = field(default_factory=threading.Event)
    checkpoint: threading.Event = field(default_factory=threading.Event)
    resumed: threading.Event = field(default_factory=threading.Event)
    """Set by the resume command, for a run that has paused by itself."""
    _unwritten: bool = False
    """True if the last write of status.json failed; this is logged once."""
    _ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        now = time.time()
        self.status = {
            "state": "starting",
            "phase": "preparing",
            "step": 0,
            "steps": self.steps,
            "budget": asdict(budget) if (budget := planned_budget(self.run)) else None,
            "progress": None,
            "message": "starting",
            "heartbeat": now,
            "started": now,
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }
        self._thread = threading.Thread(target=self._work, name="control", daemon=True)

    def __enter__(self) -> Control:
        self.run.commands.mkdir(exist_ok=True, mode=0o700)
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._write()

    def take_signals(self) -> None:
        """Let SIGTERM and SIGINT request a checkpoint and a stop, and ignore SIGHUP, so that the terminal may close."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())

    def say(self, **changes: Any) -> None:
        """Update status.json: at once if the state or the step changes, else with the next heartbeat."""
        with self._lock:
            at_once = any(key in ("state", "step") and self.status[key] != value for key, value in changes.items())
            self.status |= changes
        if at_once:
            self._write()

    def report(self, phase: str, progress: float | None = None, message: str = "") -> None:
        """Report a phase's progress, 0 to 1. Raises StopRequested if a stop was requested."""
        self.say(phase=phase, progress=progress, message=message)
        self.check()

    def check(self) -> None:
        """Raise StopRequested if a stop was requested."""
        if self.stop.is_set():
            raise StopRequested

    def _work(self) -> None:
        written = 0.0
        while not self._ended.wait(POLL_SECONDS):
            self.take_commands()
            if time.monotonic() - written >= HEARTBEAT_SECONDS:
                self._write()
                written = time.monotonic()

    def _write(self) -> None:
        with self._lock:
            if self.stop.is_set() and self.status["state"] in ("starting", "running", "paused"):
                self.status["state"] = "stopping"
            self.status["heartbeat"] = time.time()
            text = json.dumps(self.status)
            try:
                self._put(text)
                self._unwritten = False
            except OSError as error:
                if not self._unwritten:
                    log.warning("could not write status.json: %s", error)
                self._unwritten = True

    def _put(self, text: str) -> None:
        try:
            write_atomically(self.run.status, text, durable=False)
        except OSError as error:
            if not is_full(error, self.run.path):
                raise
            overwrite(self.run.status, text)  # so that the user can see why the run waits

    def take_commands(self) -> None:
        flags = {"stop": self.stop, "pause": self.pause, "checkpoint": self.checkpoint}
        try:
            waiting = sorted(self.run.commands.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        except OSError:
            return
        for path in waiting:
            name = read_command(path)
            try:
                path.unlink(missing_ok=True)
            except OSError:  # on a disk that has become read-only the same command would be carried out again and again
                continue
            log.info("command received: %s", name)
            if name == "resume":
                self.pause.clear()
                self.resumed.set()
            elif isinstance(name, str) and name in flags:
                flags[name].set()
            else:
                log.warning("unknown command in %s: %r", path.name, name)
