"""A lock on a file, held by one process: the kernel frees it when that process ends, however it ends."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PATIENCE_SECONDS = 1.0
"""Who asks whether a lock is held takes it for an instant, so whoever wants it tries for a while."""


class LockHeldError(RuntimeError):
    """Another process holds the lock."""


@contextmanager
def hold(path: Path, patience: float = PATIENCE_SECONDS) -> Iterator[IO[str]]:
    """Hold the lock on a file, which is made where there is none; gives the file, emptied. Raises LockHeldError."""
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
    """Whether a process holds the lock.

    Asked by a shared lock, taken without waiting and given back at once. /proc/locks would not touch the lock at all,
    but it hides the locks of other process namespaces (containers) and names files by device numbers that overlay
    and btrfs do not keep. Readers do not disturb each other.
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
