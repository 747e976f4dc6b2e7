"""A lock on a file, as trainers and their readers hold it."""

from __future__ import annotations

import fcntl
import threading
import time
from pathlib import Path

import pytest

from aapo_desk.store.locks import LockHeldError, hold, is_held


def test_who_only_looks_for_a_moment_keeps_nobody_from_it(tmp_path: Path) -> None:
    """A reader's look is a shared lock for an instant; here it lasts."""
    path = tmp_path / "lock"
    path.touch()
    looking = threading.Event()

    def look() -> None:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            looking.set()
            time.sleep(0.3)

    reader = threading.Thread(target=look)
    reader.start()
    assert looking.wait(30)
    with hold(path, patience=30):
        assert is_held(path)
    reader.join()


def test_what_another_holds_is_not_waited_for_in_vain_and_is_free_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    with hold(path) as file:
        file.write("a word of its holder")
        file.flush()
        with pytest.raises(LockHeldError, match="lock is locked by another process"), hold(path, patience=0.1):
            pass
        assert path.read_text() == "a word of its holder"
    assert not is_held(path)
    with hold(path):
        assert path.read_text() == ""
    assert path.stat().st_mode & 0o777 == 0o600
