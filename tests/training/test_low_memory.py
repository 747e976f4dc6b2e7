"""Low system memory: a short dip is ignored; else the run is saved and stopped before the kernel kills it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from aapo_desk import hardware
from aapo_desk.config import resolve
from aapo_desk.doctor.looking import system
from aapo_desk.fit import Room
from aapo_desk.fit.verdict import room
from aapo_desk.hardware import Spare, machine, spare_memory
from aapo_desk.models.room import free_bytes
from aapo_desk.store import RunReader, RunWriter, create_run, event_words, list_checkpoints
from aapo_desk.training import low_memory
from aapo_desk.training.control import StopRequested
from aapo_desk.training.low_memory import LowMemory, MemoryShort, reserve
from tests.training.in_process import train, weights
from tests.training.test_rollback import step_at_work

MB = 1 << 20
PLENTY, SCARCE = Spare(4000 * MB, 16000 * MB, "this machine"), Spare(100 * MB, 16000 * MB, "this machine")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check memory on every call, without waiting."""
    monkeypatch.setattr(low_memory, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(low_memory, "BETWEEN_SECONDS", 0.0)


@pytest.fixture
def store(desk_home: Path, tiny_config: dict[str, Any]) -> Iterator[RunWriter]:
    writer = RunWriter(create_run(resolve(tiny_config)))
    yield writer
    writer.close()


def seen(monkeypatch: pytest.MonkeyPatch, *found: Spare) -> None:
    rest = iter(found)
    monkeypatch.setattr(low_memory, "spare_memory", lambda swapping: next(rest))


@pytest.mark.parametrize(("total", "kept"), [(8_000, 256), (24_000, 480), (256_000, 1024)])
def test_the_reserve_is_a_share_within_bounds(total: int, kept: int) -> None:
    assert reserve(total * MB) // MB == kept


def test_a_dip_that_passes_stops_nothing(store: RunWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = LowMemory(store, torch.device("cpu"))
    seen(monkeypatch, PLENTY, SCARCE, SCARCE, SCARCE, PLENTY, PLENTY)
    for _ in range(3):
        watch.check(1)
    assert store.events("memory_short") == []


def test_a_shortage_that_stays_stops_the_run_with_its_figures(
    store: RunWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(monkeypatch, *[SCARCE] * (1 + low_memory.LOOKS))
    with pytest.raises(MemoryShort, match="memory is nearly used up"):
        LowMemory(store, torch.device("cpu")).check(7)
    ((kind, data),) = store.events("memory_short")
    assert (data["available_mb"], data["reserve_mb"], data["total_mb"]) == (100, 320, 16000)
    words = event_words(kind, data)
    assert "of this machine's 16000 MB only 100 MB are free, and 320 MB must stay free" in words
    assert words.endswith("Close other programs or raise the limit, then resume")


def test_a_run_saves_its_last_step_and_goes_on_later_to_the_same_end(
    desk_home: Path, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = tiny_config | {"rewards": [{"name": "format", "options": {"pattern": "[a-m]"}}]}
    config = resolve(quick, {"run.checkpoint_every": 100, "evaluation.problems": 0})
    whole = weights(train(create_run(config, "whole")), 3)
    run = create_run(config, "short")
    with monkeypatch.context() as context:
        context.setattr(low_memory, "spare_memory", lambda swapping: SCARCE if step_at_work() == 3 else PLENTY)
        with pytest.raises(StopRequested):
            train(run)
    assert [one.step for one in list_checkpoints(run.checkpoints)] == [2]
    assert [event.step for event in RunReader(run).poll().events if event.kind == "memory_short"] == [2]
    train(run)
    assert weights(run, 3) == whole


def group(root: Path, names: tuple[str, str], limit: str, used: int, cached: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / names[0]).write_text(f"{limit}\n")
    (root / names[1]).write_text(f"{used}\n")
    (root / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 0\n")


V2, V1 = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/user.slice/run", "sys/fs/cgroup/user.slice", V2),  # the limit is set on a parent group
        ("0::/", "sys/fs/cgroup", V2),
        ("4:memory:/docker/abc", "sys/fs/cgroup/memory", V1),  # in a container this is the host's path
    ],
)
def test_a_control_group_counts_where_it_leaves_less_than_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, folder: str, names: tuple[str, str]
) -> None:
    monkeypatch.setattr(hardware, "ROOT", tmp_path)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"1:name=systemd:/\n{line}\n")
    assert spare_memory().limit == "this machine"
    group(tmp_path / folder, names, str(500 * MB), 480 * MB, 30 * MB)
    assert spare_memory() == Spare(50 * MB, 500 * MB, "its control group")
    # Plans, estimates and alarms use the same figure.
    assert free_bytes(torch.device("cpu")) == 50 * MB
    assert (machine().memory_available, machine().memory_total) == (50, 500)
    assert room("cpu", machine()) == Room("cpu", "this machine", 500 * MB, 50 * MB)
    assert system().memory_available == 50
    group(tmp_path / folder, names, "max", 480 * MB, 30 * MB)
    assert spare_memory().limit == "this machine"


def test_free_swap_keeps_a_run_alive_and_is_never_planned_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "ROOT", tmp_path)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 1 kB\nSwapFree:  {1 << 40} kB\n")
    assert spare_memory(swapping=True).available > 1 << 49
    assert spare_memory().available < 1 << 49
    assert free_bytes(torch.device("cpu")) < 1 << 49
