"""The injected faults: how each is put into a trainer, and the event, message and outcome that follow.

Killing the trainer is tested in ``test_faults``, non-finite numbers and memory in ``tests/training``.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from aapo_desk import launch
from aapo_desk.store import RunDirectory, RunReader, create_run, list_checkpoints
from aapo_desk.store.checkpoints import newest_whole
from aapo_desk.training import control, pauses
from aapo_desk.training.__main__ import main
from aapo_desk.tui.history import History
from tests.faults.injecting import (
    STEPS,
    Disk,
    ask,
    before_step,
    configuration,
    copied,
    kinds,
    learned,
    limit_checkpoints,
    limit_database,
    limit_status,
    onlooker,
    train,
    until_paused,
)

FAULTY = 3
"""The step in which a fault is put; the checkpoint before is of step 2."""


@pytest.fixture
def new_run(desk_home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunDirectory]:
    monkeypatch.setattr(pauses, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(control, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(control, "POLL_SECONDS", 0.02)
    return lambda **changes: create_run(configuration(tiny_model, **changes), "faulty")


@dataclass(frozen=True)
class Fault:
    """A disk that fails with the errno ``number`` where ``limit`` applies, and the expected outcome."""

    name: str
    limit: Callable[[Disk, pytest.MonkeyPatch], None]
    number: int
    message: str
    event: str


FULL = [
    Fault("step record", limit_database, errno.ENOSPC, "paused: the disk is full: {run} has ", "disk_full"),
    Fault("checkpoint", limit_checkpoints, errno.ENOSPC, "paused: the disk is full: {run} has ", "disk_full"),
    Fault("checkpoint, quota", limit_checkpoints, errno.EDQUOT, "paused: the disk is full: your quota", "disk_full"),
]
REFUSED = [
    Fault("step record", limit_database, errno.EROFS, "permission denied for {run}", "failed"),
    Fault("checkpoint", limit_checkpoints, errno.EROFS, "its disk is read-only; mount it writable", "failed"),
    Fault("checkpoint, rights", limit_checkpoints, errno.EACCES, "permission denied for ", "failed"),
]


@pytest.mark.parametrize("fault", FULL, ids=lambda fault: fault.name)
def test_a_full_disk_pauses_the_run_which_goes_on_by_itself_and_loses_nothing(
    fault: Fault, new_run: Callable[..., RunDirectory], undisturbed: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, disk = new_run(), Disk()
    fault.limit(disk, monkeypatch)
    limit_status(disk, monkeypatch)
    before_step(FAULTY, partial(setattr, disk, "number", fault.number), monkeypatch)

    def look() -> None:
        said = until_paused(run)  # although status.json had no room either
        assert said.startswith(fault.message.format(run=run.path)), said
        assert said.endswith(f"the run continues once there is room; to stop it instead: aapo-desk stop {run.id}")
        beat = run.read_status()["heartbeat"]
        time.sleep(0.3)  # the write is tried again and fails again
        assert run.read_status()["heartbeat"] > beat, "the heartbeat goes on"
        assert len(RunReader(run).poll().metrics) < STEPS + 1, "who reads the run is not disturbed"
        disk.number = None

    with onlooker(run, look):
        assert train(run) == 0
    assert run.read_status()["state"] == "finished"
    happened = kinds(run)
    assert happened.count(fault.event) == happened.count("unpaused") == 1
    assert learned(run) == learned(undisturbed)


def test_a_resume_tries_again_at_once(
    new_run: Callable[..., RunDirectory], undisturbed: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, disk = new_run(), Disk()
    monkeypatch.setattr(pauses, "RETRY_SECONDS", 1e9)
    limit_checkpoints(disk, monkeypatch)
    before_step(FAULTY, partial(setattr, disk, "number", errno.ENOSPC), monkeypatch)

    def look() -> None:
        until_paused(run)
        disk.number = None
        ask(run, "resume")

    with onlooker(run, look):
        assert train(run) == 0
    assert learned(run) == learned(undisturbed)


@pytest.mark.parametrize(("limit", "at"), [(limit_database, STEPS), (limit_checkpoints, FAULTY)])
def test_a_stop_while_the_disk_is_full_stops_and_a_resume_repeats_what_could_not_be_kept(
    limit: Callable[[Disk, pytest.MonkeyPatch], None],
    at: int,
    new_run: Callable[..., RunDirectory],
    undisturbed: RunDirectory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, disk = new_run(), Disk()
    limit(disk, monkeypatch)
    before_step(at, partial(setattr, disk, "number", errno.ENOSPC), monkeypatch)

    def look() -> None:
        until_paused(run)
        (run.commands / "1234.stop.json").touch()  # how a stop is requested if only a file name fits on the disk

    with onlooker(run, look):
        assert train(run) == 0
    assert (run.read_status()["state"], run.read_status()["message"]) == (
        "stopped",
        "stopped while the disk was full; resuming continues from the last checkpoint",
    )
    assert [one.step for one in list_checkpoints(run.checkpoints)] == [2], "the adapter is ahead of the last step kept"
    disk.number = None
    assert train(run) == 0
    assert learned(run) == learned(undisturbed)


@pytest.mark.parametrize("fault", REFUSED, ids=lambda fault: fault.name)
def test_a_disk_that_refuses_to_be_written_fails_the_run_in_one_clear_line(
    fault: Fault, new_run: Callable[..., RunDirectory], undisturbed: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, disk = new_run(), Disk()
    fault.limit(disk, monkeypatch)
    before_step(FAULTY, partial(setattr, disk, "number", fault.number), monkeypatch)
    assert train(run) == 1
    said = run.read_status()
    assert said["state"] == "failed"
    assert fault.message.format(run=run.path) in said["message"]
    assert str(run.path) in said["message"]
    assert "\n" not in said["message"]
    disk.number = None
    assert train(run) == 0
    assert learned(run) == learned(undisturbed)


def test_a_heartbeat_that_cannot_be_written_at_all_ends_nothing(
    new_run: Callable[..., RunDirectory], undisturbed: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, disk = new_run(), Disk()
    limit_status(disk, monkeypatch)
    before_step(2, partial(setattr, disk, "number", errno.EROFS), monkeypatch)
    before_step(FAULTY, lambda: time.sleep(0.2), monkeypatch)
    before_step(STEPS, partial(setattr, disk, "number", None), monkeypatch)
    assert train(run) == 0
    assert run.read_status()["state"] == "finished"
    assert learned(run) == learned(undisturbed)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("file", ["adapter/adapter_model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_told_from_a_whole_one(
    damage: Callable[[Path], None], file: str, undisturbed: RunDirectory, tmp_path: Path
) -> None:
    run = copied(undisturbed, tmp_path / "run")
    damage(run.checkpoints / f"step_{STEPS:06d}" / file)
    found = newest_whole(run.checkpoints)
    assert found is not None
    assert found[0].step == 2
    assert f"step_{STEPS:06d}" in found[2][0]


@pytest.mark.parametrize("damage", [truncate, flip])
def test_a_damaged_checkpoint_is_passed_over_with_a_word_and_the_run_ends_the_same(
    damage: Callable[[Path], None], undisturbed: RunDirectory, tmp_path: Path
) -> None:
    run = copied(undisturbed, tmp_path / "run")
    damage(run.checkpoints / f"step_{STEPS:06d}" / "adapter" / "adapter_model.safetensors")
    assert train(run) == 0
    happened = RunReader(run).poll().events
    (word,) = [event.data["message"] for event in happened if event.kind == "notice"]
    assert word.startswith("checkpoint skipped: ")
    assert "adapter/adapter_model.safetensors is missing or damaged" in word
    assert [event.data["from_step"] for event in happened if event.kind == "resumed"] == [2]
    assert learned(run) == learned(undisturbed)


def test_a_clock_that_jumps_back_and_forth_changes_nothing_but_the_times(
    new_run: Callable[..., RunDirectory], undisturbed: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, clock, jump = new_run(), time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: clock() + jump[0])
    before_step(2, partial(jump.__setitem__, 0, -86400.0), monkeypatch)
    before_step(FAULTY, partial(jump.__setitem__, 0, 86400.0), monkeypatch)
    assert train(run) == 0
    assert learned(run) == learned(undisturbed)
    jump[0] = 0.0
    reader, history = RunReader(run), History()
    delta = reader.poll()
    history.extend(delta)
    assert [step for step, _, _ in delta.metrics] == list(range(1, STEPS + 1))
    assert history.elapsed(clock()) is not None
    assert 0 <= (history.elapsed(clock()) or 0) < 3 * 86400
    assert 0 < (history.remaining(2 * STEPS, 0, evaluated=False) or 0) < 60, "of what steps took, not of the clock"
    assert kinds(run)[-1] == "finished"


@pytest.mark.parametrize("hours", [-48, 0, 48])
def test_a_run_at_work_is_running_whatever_the_clock_says(
    hours: int, undisturbed: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, now = copied(undisturbed, tmp_path / "run"), time.time()
    run.status.write_text(json.dumps(run.read_status() | {"heartbeat": now + 3600 * hours}))
    with control.locked(run):
        assert launch.state(run) == "running"
    assert launch.state(run) == "crashed"  # after a reboot the lock is free, however fresh the heartbeat


@pytest.mark.parametrize(("age", "state"), [(0, "running"), (3600, "crashed"), (-3600, "crashed")])
def test_of_a_run_on_another_host_whose_lock_is_not_seen_the_heartbeat_tells(
    age: float, state: str, undisturbed: RunDirectory, tmp_path: Path
) -> None:
    run = copied(undisturbed, tmp_path / "run")
    run.status.write_text(json.dumps(run.read_status() | {"heartbeat": time.time() - age, "host": "elsewhere"}))
    assert launch.state(run) == state


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_twice_checkpoints_and_stops_and_a_terminal_that_goes_away_does_nothing(
    number: int, new_run: Callable[..., RunDirectory], undisturbed: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run()

    def twice() -> None:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)

    before_step(2, partial(os.kill, os.getpid(), signal.SIGHUP), monkeypatch)
    before_step(FAULTY + 1, twice, monkeypatch)
    assert train(run) == 0
    assert run.read_status()["state"] == "stopped"
    assert kinds(run)[-2:] == ["checkpoint", "stopped"]
    assert list_checkpoints(run.checkpoints)[0].step == FAULTY
    assert train(run) == 0
    assert learned(run) == learned(undisturbed)


@pytest.mark.slow
def test_twenty_readers_at_once_and_the_trainer_do_not_disturb_each_other(
    new_run: Callable[..., RunDirectory], undisturbed: RunDirectory
) -> None:
    run, over = new_run(), threading.Event()
    seen: list[list[int]] = []

    def read() -> None:
        reader = RunReader(run)
        steps: list[int] = []
        while not (ended := over.is_set()) or not steps:
            steps += [step for step, _, _ in reader.poll().metrics]
            assert launch.state(run) is not None
            time.sleep(0.01)
        seen.append(steps + [step for step, _, _ in reader.poll().metrics] if ended else steps)

    with ThreadPoolExecutor(20) as pool:
        reading = [pool.submit(read) for _ in range(20)]
        try:
            assert train(run) == 0
        finally:
            over.set()
        for one in reading:
            one.result()
    assert seen == [list(range(1, STEPS + 1))] * 20
    assert learned(run) == learned(undisturbed)


def test_a_second_trainer_is_refused_and_changes_nothing(
    undisturbed: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control, "LOCK_PATIENCE_SECONDS", 0.1)
    run = copied(undisturbed, tmp_path / "run")
    with control.locked(run):
        before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
        assert main([str(run.path)]) == 1
        assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    assert capsys.readouterr().err == f"another trainer is already running run {run.id}\n"
