"""The supervisor process: ensuring that there is only one, starting it in the background, asking it to stop."""

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
    """Return the log of a supervisor that runs in the background."""
    return folder() / "queue.log"


def _lock() -> Path:
    return folder() / "supervisor.lock"


def _wish() -> Path:
    return folder() / "stop"


@contextmanager
def only_one() -> Iterator[None]:
    """Hold the supervisor's lock, which the kernel releases when this process ends for any reason.

    Raises LaunchError if another process holds it.
    """
    folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with hold(_lock()) as file:
            _wish().unlink(missing_ok=True)  # This request was meant for an earlier supervisor.
            file.write(f"{os.getpid()}")
            file.flush()
            yield
    except LockHeldError:
        raise LaunchError(
            "the queue is already running; see it with: aapo-desk queue list; stop it with: aapo-desk queue stop"
        ) from None


def is_worked_off() -> bool:
    """Return whether a supervisor is running."""
    return is_held(_lock())


def ask_to_stop() -> None:
    """Ask the supervisor to stop the current run with a checkpoint, and then to end.

    Raises LaunchError if no supervisor is running.
    """
    if not is_worked_off():
        raise LaunchError("the queue is not running, so there is nothing to stop")
    _wish().touch(mode=0o600)


def asked_to_stop() -> bool:
    """Return whether ``ask_to_stop`` was called since this supervisor started."""
    return _wish().exists()


def start_supervisor() -> None:
    """Start a supervisor in the background, in a session of its own, and return once it is running.

    Raises LaunchError if there is one already, or if it cannot be started.
    """
    if is_worked_off():
        raise LaunchError("the queue is already running; stop it with: aapo-desk queue stop")
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
    # A thread waits for the process, which would otherwise stay a zombie after its end while this program runs.
    threading.Thread(target=process.wait, name="queue", daemon=True).start()
    deadline = time.monotonic() + SECONDS_TO_START
    while _last_one() != process.pid:
        ended = process.poll() is not None
        if (ended or time.monotonic() > deadline) and _last_one() != process.pid:
            if process.returncode == 0:
                return  # The queue has become empty in the meantime.
            raise LaunchError(f"the supervisor did not start; see {log_file()}")
        time.sleep(0.05)


def _last_one() -> int | None:
    """Return the process id of the current or the last supervisor; None if there is none."""
    try:
        return int(_lock().read_text())
    except (OSError, ValueError):
        return None
