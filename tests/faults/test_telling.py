"""Messages to the user about a disk that cannot be written and about a run that has paused by itself."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from aapo_desk.bundle.privacy import Privacy
from aapo_desk.cli.follow import Follower
from aapo_desk.config import resolve
from aapo_desk.store import RunWriter, create_run, event_words, overwrite, read_json
from aapo_desk.store.full import is_full, trouble
from aapo_desk.tui.widgets.header import second_line
from tests.tui.test_header import FACTS

WHY = "paused: the disk is full: /runs/one has 0.0 MB free and needs 1.0 MB; it goes on once there is room"


def of_the_system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class RustError(Exception):
    """An error with the system's message, as safetensors raises it."""


def of_sqlite(pragma: str) -> sqlite3.Error:
    """Return the error that SQLite raises for an insert after this PRAGMA."""
    with sqlite3.connect(":memory:") as db:
        db.execute("CREATE TABLE t(a)")
        db.execute(pragma)
        with pytest.raises(sqlite3.Error) as raised:
            db.execute("INSERT INTO t VALUES (?)", ("x" * 100_000,))
    db.close()
    return raised.value


@pytest.mark.parametrize(
    ("error", "full", "words"),
    [
        (of_the_system(errno.ENOSPC), True, "the disk is full: {} has "),
        (of_the_system(errno.EDQUOT), True, "the disk is full: your quota for {} is used up"),
        (of_sqlite("PRAGMA max_page_count=1"), True, "the disk is full: {} has "),
        (RustError("I/O error: No space left on device (os error 28)"), True, "the disk is full: {} has "),
        (of_the_system(errno.EROFS), False, "{} cannot be written: its disk is read-only"),
        (of_the_system(errno.EACCES), False, "permission denied for {}"),
        (of_sqlite("PRAGMA query_only=1"), False, "permission denied for {}"),
        (of_the_system(errno.ENOENT), False, None),
        (OSError(errno.ENOSPC, "No space left on device", "/elsewhere/model.bin"), True, None),
        (ValueError("the disk is full (os error x)"), False, None),
    ],
)
def test_an_error_is_known_as_the_disks(error: Exception, full: bool, words: str | None, tmp_path: Path) -> None:
    assert is_full(error, tmp_path) is full
    said = trouble(error, tmp_path)
    assert said is None if words is None else str(said).startswith(words.format(tmp_path))


def test_a_status_fits_where_the_last_one_lay(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text(json.dumps({"state": "running", "message": "x" * 100}))
    inode = path.stat().st_ino
    for message in ("short", "longer " * 50):
        overwrite(path, json.dumps({"state": "paused", "message": message}))
        assert read_json(path) == {"state": "paused", "message": message}
    assert path.stat().st_ino == inode


def test_who_follows_a_run_in_plain_lines_is_told_once_why_it_paused(desk_home: Path) -> None:
    run = create_run(resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}}))
    writer, follower = RunWriter(run), Follower(run)
    writer.write_event("disk_full", 3, folder="/runs/one", free=0, needed=1 << 20)
    run.status.write_text(json.dumps({"state": "paused", "message": WHY}))
    assert list(follower.look()) == [WHY]
    assert list(follower.look()) == []
    run.status.write_text(json.dumps({"state": "running", "message": ""}))
    writer.write_event("unpaused", 3)
    assert list(follower.look()) == ["resumed after the pause"]
    writer.close()
    assert list(Follower(run).look()) == [
        "PAUSED: the disk is full: /runs/one has 0.0 MB free and needs 1.0 MB",
        "resumed after the pause",
    ]


def test_the_monitor_says_why_a_run_has_paused() -> None:
    line = "".join(text for text, _ in second_line(replace(FACTS, state="paused", message=WHY), 160))
    assert line.startswith(f"p: continue · {WHY}")
    asked_for = "".join(text for text, _ in second_line(replace(FACTS, state="paused", message="paused"), 160))
    assert asked_for.startswith("p: continue · elapsed")


def test_of_a_failing_reward_a_bundle_keeps_the_function_and_not_the_answer() -> None:
    data = {
        "function": "polite",
        "error": "polite: raised ValueError: no score for You robbed (line 3)",
        "count": 10,
        "completion": "You robbed a bank.",
    }
    assert event_words("rewards_failing", data).startswith("PAUSED: polite could not score 10 answers in a row")
    kept = Privacy(texts=False).value(data)
    assert kept["function"] == "polite"
    assert kept["count"] == 10
    assert "robbed" not in json.dumps(kept)
