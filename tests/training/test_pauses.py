"""When a write that failed on a full disk is tried again."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest

from aapo_desk.config import resolve
from aapo_desk.store import create_run
from aapo_desk.training import pauses
from aapo_desk.training.control import Control
from aapo_desk.training.pauses import Room

NEEDED = 1000


class Work:
    """A write that fails on a full disk the first time."""

    def __init__(self) -> None:
        self.tries = 0

    def __call__(self) -> int:
        self.tries += 1
        if self.tries == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.tries


@pytest.fixture
def control(desk_home: Path, monkeypatch: pytest.MonkeyPatch) -> Control:
    monkeypatch.setattr(pauses, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(pauses, "POLL_SECONDS", 0.01)
    made = Control(create_run(resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}})), 9)
    made.say(state="running")
    return made


def test_with_less_free_than_it_takes_only_a_resume_has_it_tried(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def free(_: Path) -> int:
        looks.append(work.tries)
        if len(looks) == 20:
            control.resumed.set()
        return NEEDED - 1

    work = Work()
    monkeypatch.setattr(pauses, "free", free)
    assert Room(control.run, control).keep(work, needed=NEEDED) == 2
    assert looks == [1] * len(looks)
    assert len(looks) in (20, 21)
    assert control.status["state"] == "running"


def test_with_room_again_it_is_tried_by_itself(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    freed = threading.Event()
    monkeypatch.setattr(pauses, "free", lambda _: NEEDED if freed.is_set() else 0)
    began = time.monotonic()
    threading.Timer(0.2, freed.set).start()
    assert Room(control.run, control).keep(Work(), needed=NEEDED) == 2
    assert time.monotonic() - began >= 0.2
