"""The supervisor as a process: that there is one at most, starting it in the background, asking it to end."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aapo_desk.launch import LaunchError
from aapo_desk.launch.child import environment, python
from aapo_desk.store.locks import LockHeldError, hold, is_held
from aapo_desk.studies.queue.entries import folder

SECONDS_TO_START = 15.0


def log_file() -> Path:
    """What a supervisor in the background says."""
    return folder() / "queue.log"


def _lock() -> Path:
    return folder() / "supervisor.lock"


def _wish() -> Path:
    return folder() / "stop"


@contextmanager
def only_one() -> Iterator[None]:
    """Be the supervisor. The kernel frees the lock when this process ends, however it ends. Raises LaunchError."""
    folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with hold(_lock()) as file:
            _wish().unlink(missing_ok=True)  # meant for one that is gone
            file.write(f"{os.getpid()}")
            file.flush()
            yield
    except LockHeldError:
        raise LaunchError(
            "the queue is being worked off already; see: aapo-desk queue list; end it with: aapo-desk queue stop"
        ) from None


def is_worked_off() -> bool:
    """Whether a supervisor is at work."""
    return is_held(_lock())


def ask_to_stop() -> None:
    """Ask the supervisor to have the run that trains write a checkpoint and stop, and to end.

    Raises LaunchError where there is none.
    """
    if not is_worked_off():
        raise LaunchError("nothing works the queue off, so there is nothing to stop")
    _wish().touch(mode=0o600)


def asked_to_stop() -> bool:
    """Whether ``ask_to_stop`` was called since this supervisor began."""
    return _wish().exists()


def start_supervisor() -> None:
    """Work the queue off in the background, in a session of its own. Gives back once it does.

    Raises LaunchError where there is one already, or where it cannot be started.
    """
    if is_worked_off():
        raise LaunchError("the queue is being worked off already; end it with: aapo-desk queue stop")
    folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    log_file().touch(mode=0o600)
    try:
        with log_file().open("ab") as log:
            process = subprocess.Popen(
                [*python("aapo_desk"), "queue", "run"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder(),
                env=environment(),
                start_new_session=True,
            )
    except OSError as error:
        raise LaunchError(f"the supervisor cannot be started: {error.strerror or error}") from error
    # Somebody must take note of its end, or it stays behind as a zombie while this program goes on.
    threading.Thread(target=process.wait, name="queue", daemon=True).start()
    deadline = time.monotonic() + SECONDS_TO_START
    while _last_one() != process.pid:
        ended = process.poll() is not None
        if (ended or time.monotonic() > deadline) and _last_one() != process.pid:
            if process.returncode == 0:
                return  # somebody has emptied the queue in this moment
            raise LaunchError(f"the supervisor did not start; see {log_file()}")
        time.sleep(0.05)


def _last_one() -> int | None:
    """The process that was the supervisor last, or is it."""
    try:
        return int(_lock().read_text())
    except (OSError, ValueError):
        return None
