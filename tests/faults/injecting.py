"""Run a trainer inside the test's process and inject faults: at a step, or from an onlooker's thread."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import checkpoint, launch
from aapo_desk.config import RunConfig, resolve
from aapo_desk.store import RunDirectory, RunReader, write_atomically
from aapo_desk.store.writer import RunWriter
from aapo_desk.training import control, trainer
from aapo_desk.training.__main__ import work
from aapo_desk.training.distributed.env import Place

PATIENCE = 60.0
STEPS = 4


def configuration(model: Path, **changes: Any) -> RunConfig:
    """Return the configuration of a run of about a second, with the tiny ``model`` and a quickly starting reward."""
    return resolve(
        {
            "model": {"id": str(model), "device": "cpu", "quantization": "none"},
            "lora": {"r": 4, "alpha": 8},
            "task": {"source": "arithmetic", "held_out": 0, "max_prompt_tokens": 200},
            "rewards": [{"name": "format", "options": {"pattern": "[a-m]"}}],
            "rollout": {"prompts_per_step": 2, "group_size": 4, "max_new_tokens": 6},
            "optimizer": {"learning_rate": 1e-3},
            "run": {"steps": STEPS, "checkpoint_every": 2},
            "evaluation": {"problems": 0},
        }
        | changes
    )


@dataclass
class Disk:
    """A disk on which every write fails with the errno ``number``; None: writes succeed."""

    number: int | None = None
    halves: list[Path] = field(default_factory=list)
    """Files that were written only in part."""

    def check(self, path: Path | None = None) -> None:
        if self.number is not None:
            raise OSError(self.number, "it was injected", *([str(path)] if path else []))


class LimitedConnection(sqlite3.Connection):
    """A connection in which SQLite itself fails: its database may not grow, or may not be written."""

    disk: Disk

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql == "BEGIN IMMEDIATE":
            full, refused = self.disk.number == errno.ENOSPC, self.disk.number == errno.EROFS
            super().execute(f"PRAGMA max_page_count={1 if full else 1 << 30}")
            super().execute(f"PRAGMA query_only={int(refused)}")
        if sql == "COMMIT" and self.disk.number == errno.ENOSPC:  # a small write may fit into existing pages
            super().execute("INSERT INTO run VALUES ('filler', zeroblob(1000000))")
        return super().execute(sql, *arguments)


def limit_database(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = RunWriter._open

    def limited(writer: RunWriter) -> sqlite3.Connection:
        opened(writer).close()
        made = sqlite3.connect(writer.run.database, isolation_level=None, factory=LimitedConnection)
        made.disk = disk
        return made

    monkeypatch.setattr(RunWriter, "_open", limited)


def limit_checkpoints(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file = vars(checkpoint)["save_file"]

    def limited(tensors: Any, path: Path, **named: Any) -> None:
        if disk.number is not None:
            path.write_bytes(b"half")
            disk.halves.append(path)
        disk.check(path)
        save_file(tensors, path, **named)

    monkeypatch.setattr(checkpoint, "save_file", limited)


def limit_status(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def limited(path: Path, text: str, durable: bool = True) -> None:
        disk.check(path)
        write_atomically(path, text, durable)

    monkeypatch.setattr(control, "write_atomically", limited)


def before_step(number: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call ``act`` once, when the trainer begins step ``number``."""
    run_step, left = vars(trainer)["run_step"], [act]

    def stepped(parts: Any, at: int, report: Any) -> Any:
        if at == number and left:
            left.pop()()
        return run_step(parts, at, report)

    monkeypatch.setattr(trainer, "run_step", stepped)


def train(run: RunDirectory) -> int:
    """Do what the background process does under its lock, and return its exit status."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        return work(run, Place())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def onlooker(run: RunDirectory, looks: Callable[[], None]) -> Iterator[None]:
    """Run ``looks`` in a thread beside the trainer. If it fails, stop the trainer and raise its error at the end."""
    failed: list[BaseException] = []

    def look() -> None:
        try:
            looks()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)
            ask(run, "stop")

    thread = threading.Thread(target=look)
    thread.start()
    yield
    thread.join()
    if failed:
        raise failed[0]


def ask(run: RunDirectory, command: str) -> None:
    """Leave a command as ``launch`` does, atomically: a half-written file would be taken for an invalid command."""
    write_atomically(run.commands / f"{time.monotonic_ns()}.json", json.dumps({"command": command}), durable=False)


def until_paused(run: RunDirectory) -> str:
    """Wait until the run's state is paused, and return its message."""
    deadline = time.monotonic() + PATIENCE
    while (status := run.read_status()).get("state") != "paused":
        assert status.get("state") not in ("finished", "stopped", "failed"), f"it was never paused: {status}"
        assert time.monotonic() < deadline, f"it was never paused: {status}"
        time.sleep(0.01)
    return str(status["message"])


def copied(run: RunDirectory, folder: Path) -> RunDirectory:
    """Copy the run as its trainer would have left it if it had been killed after its last step."""
    shutil.copytree(run.path, folder)
    copy = RunDirectory(folder)
    copy.status.write_text(json.dumps(run.read_status() | {"state": "running", "heartbeat": 0}))
    assert launch.state(copy) == "crashed"
    return copy


def kinds(run: RunDirectory) -> list[str]:
    """Return the kinds of the events, except for the alarms that a random model raises."""
    return [event.kind for event in RunReader(run).poll().events if not event.kind.startswith("alarm")]


def learned(run: RunDirectory) -> dict[str, Any]:
    """Return everything that training has produced: equal in two runs that differ only in the faults injected."""
    with sqlite3.connect(run.database) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = db.execute("SELECT step, row, is_reference, completion, reward FROM samples ORDER BY 1, 2, 3").fetchall()
        metrics = db.execute("SELECT step, data FROM metrics ORDER BY step").fetchall()
    db.close()
    newest = checkpoint.list_checkpoints(run.checkpoints)[0]
    clocks = ("seconds_", "tokens_per_second", "memory_mb")
    return {
        "tensors": {path.name: path.read_bytes() for path in sorted(newest.path.rglob("*.safetensors"))},
        "step": newest.step,
        "metrics": [
            (number, {key: value for key, value in json.loads(data).items() if not key.startswith(clocks)})
            for number, data in metrics
        ],
        "samples": rows,
        "half checkpoints": [path.name for path in run.checkpoints.iterdir() if path.name.startswith(".")],
    }
