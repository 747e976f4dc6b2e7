"""The bank on disk: shared, private, and never a run's undoing."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aapo_desk.rewards import Score
from aapo_desk.rollout import Bank, Scored

GROUP = [
    Scored("the answer is 3", 4, False, Score(0.1 + 0.2, {"math": 1.0, "format": 0.0})),
    Scored("\ud83d half a character, \x00 and a line\n", 6, True, Score(None, {"math": None}, "math: timed out")),
]
OTHER = [Scored("no", 1, False, Score(1 / 3, {"math": 1 / 3}))] * 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "bank" / "reference.db"


def silent(message: str) -> None:
    pytest.fail(message)


# It imports once what takes seconds, and each writer is a fork of it.
WRITERS = """
import json, os, sys
from pathlib import Path
from aapo_desk.rewards import Score
from aapo_desk.rollout import Bank, Scored

def group(text): return [Scored(text, 1, False, Score(1.0, {}))] * 2

for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
    elif pid := os.fork():
        print(pid, flush=True)
    else:
        try:
            exec(asked["code"], {"bank": Bank(Path(asked["path"]), sys.exit), "group": group})
            os._exit(0)
        finally:
            os._exit(1)
"""


class Writers:
    """Processes with a bank of their own each."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, path: Path, code: str) -> int:
        """The id of a process that has just begun."""
        return self._ask({"path": str(path), "code": code})

    def wait(self, pid: int) -> int:
        return self._ask({"wait": pid})

    def _ask(self, words: dict[str, object]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    command = [sys.executable, "-c", WRITERS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Writers(process)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file can grow beyond ``room`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_another_bank_on_the_same_file_finds_the_very_same_groups(path: Path) -> None:
    assert Bank(path, silent).keep({"a": GROUP, "b": OTHER}) == {"a": GROUP, "b": OTHER}
    again = Bank(path, silent)
    assert again.find(["b", "c", "a"]) == {"a": GROUP, "b": OTHER}
    assert again.find([]) == {}


def test_nobody_else_can_read_it(path: Path) -> None:
    Bank(path, silent).keep({"a": GROUP})
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_looking_makes_no_file(path: Path) -> None:
    assert Bank(path, silent).find(["a"]) == {}
    assert not path.parent.exists()


def test_where_another_run_was_first_its_group_stands(path: Path) -> None:
    late = Bank(path, silent)
    assert late.find(["a"]) == {}
    Bank(path, silent).keep({"a": GROUP})
    assert late.keep({"a": OTHER, "b": OTHER}) == {"a": GROUP, "b": OTHER}
    assert late.find(["a"]) == {"a": GROUP}
    assert Bank(path, silent).find(["a"]) == {"a": GROUP}


def test_two_processes_that_write_at_once_lose_nothing(path: Path, writers: Writers) -> None:
    code = "for n in range(20): bank.keep({f'{name}{n}': group(name), f'shared{n}': group('either')})\n"
    both = [writers.start(path, f"name = {name!r}\n{code}") for name in "xy"]
    assert [writers.wait(one) for one in both] == [0, 0]
    keys = [f"{name}{n}" for name in ("x", "y", "shared") for n in range(20)]
    assert list(Bank(path, silent).find(keys)) == keys


def test_a_process_that_is_killed_while_writing_leaves_all_of_a_call_or_nothing(path: Path, writers: Writers) -> None:
    code = "for n in range(100_000): bank.keep({f'{n}/{k}': group('word ' * 2000) for k in range(4)})\n"
    for wait in (0.05, 0.12, 0.3):
        process = writers.start(path, code)
        time.sleep(wait)
        os.kill(process, signal.SIGKILL)
        assert writers.wait(process) == -signal.SIGKILL
    bank = Bank(path, silent)
    bank.keep({"after": GROUP})
    found = bank.find([f"{n}/{k}" for n in range(2000) for k in range(4)])
    assert len(found) > 0
    assert len(found) % 4 == 0
    assert {one.text for group in found.values() for one in group} == {"word " * 2000}


def test_a_file_that_was_made_and_no_more_counts_as_empty(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.touch()
    bank = Bank(path, silent)
    assert bank.find(["a"]) == {}
    bank.keep({"a": GROUP})
    assert Bank(path, silent).find(["a"]) == {"a": GROUP}


@pytest.mark.parametrize("damage", ["garbage", "torn"])
def test_a_damaged_file_is_said_once_and_passed_over(path: Path, damage: str) -> None:
    Bank(path, silent).keep({str(number): GROUP for number in range(200)})
    whole = path.read_bytes()
    path.write_bytes(b"no database " * 1000 if damage == "garbage" else whole[:2000] + b"\0" * (len(whole) // 2))
    before = path.read_bytes()
    said: list[str] = []
    bank = Bank(path, said.append)
    assert bank.find(["1", "2"]) == {}
    assert bank.keep({"1": OTHER}) == {"1": OTHER}
    assert bank.find(["1", "2"]) == {"1": OTHER}
    assert len(said) == 1
    assert str(path) in said[0]
    assert "delete it" in said[0]
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_said_once_and_memory_serves(path: Path) -> None:
    path.parent.parent.mkdir()
    path.parent.write_text("a file where the folder should be")
    said: list[str] = []
    bank = Bank(path, said.append)
    assert bank.find(["a"]) == {}
    assert bank.keep({"a": GROUP}) == {"a": GROUP}
    bank.keep({"b": OTHER})
    assert bank.find(["a", "b"]) == {"a": GROUP, "b": OTHER}
    assert len(said) == 1
    assert "cannot be written" in said[0]


def test_a_full_disk_is_said_once_and_what_stands_there_is_still_read(path: Path) -> None:
    Bank(path, silent).keep({"a": GROUP})
    said: list[str] = []
    bank = Bank(path, said.append)
    with full_disk(path.stat().st_size // 2):
        assert bank.keep({"b": OTHER}) == {"b": OTHER}
        assert bank.keep({"c": OTHER}) == {"c": OTHER}
        assert bank.find(["a", "b", "c"]) == {"a": GROUP, "b": OTHER, "c": OTHER}
    assert len(said) == 1
    assert "cannot be written" in said[0]
    assert Bank(path, silent).find(["a", "b"]) == {"a": GROUP}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_bank_is_read(path: Path) -> None:
    Bank(path, silent).keep({"a": GROUP})
    path.chmod(0o400)
    path.parent.chmod(0o500)
    said: list[str] = []
    bank = Bank(path, said.append)
    assert bank.find(["a"]) == {"a": GROUP}
    assert bank.keep({"b": OTHER}) == {"b": OTHER}
    path.parent.chmod(0o700)
    assert len(said) == 1
