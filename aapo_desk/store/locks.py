"""A file lock held by one process. The kernel releases it when that process ends, for whatever reason."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PATIENCE_SECONDS = 1.0
"""How long ``hold`` retries, since ``is_held`` in another process takes the lock for an instant."""


class LockHeldError(RuntimeError):
    """Raised if another process holds the lock."""


@contextmanager
def hold(path: Path, patience: float = PATIENCE_SECONDS) -> Iterator[IO[str]]:
    """Hold the lock on a file and yield the file, emptied. A missing file is created. Raises LockHeldError."""
    path.touch(mode=0o600)
    with path.open("a") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LockHeldError(f"{path} is locked by another process") from None
                time.sleep(0.02)
        file.truncate(0)
        yield file


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock.

    This takes a shared lock without waiting and releases it at once, so readers do not disturb each other.
    Reading /proc/locks would not touch the lock at all, but it hides the locks of other process namespaces
    (containers) and identifies files by device numbers, which are not stable on overlay and btrfs.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
