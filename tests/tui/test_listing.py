from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import hardware
from aapo_desk.config import resolve
from aapo_desk.hardware import Gpu, Machine
from aapo_desk.store import RunWriter, pin_run, rename_run
from aapo_desk.tui.listing import PresetRow, RunList, created, judge_presets
from tests.shapes import SMOLLM2_135M
from tests.tui import fixed_run
from tests.tui.driving import Live


def test_the_list_tells_live_from_left_and_names_what_cannot_be_read(live: Live) -> None:
    live(fixed_run.write_run("alive", "20260102-100000-aaaa", done=5))
    fixed_run.write_run("done", "20260102-090000-aaaa", done=40, state="finished")
    broken = fixed_run.new_run("broken", "20260102-080000-aaaa")
    broken.config.write_text("{}", encoding="utf-8")
    fixed_run.put_status(fixed_run.new_run("failed-one", "20260102-070000-aaaa"), "failed", 0, fixed_run.STARTED)
    runs = RunList()
    rows = runs.read()
    assert [(row.name, row.state, row.step, row.steps) for row in rows[:2]] == [
        ("alive", "running", 5, 40),
        ("done", "finished", 40, 40),
    ]
    assert (rows[2].name, rows[2].model) == ("broken", "?")
    assert rows[3].reward is None
    assert [row is before for row, before in zip(runs.read(), rows, strict=True)] == [True] * 4


def test_what_changes_is_seen_the_next_time(live: Live) -> None:
    run = fixed_run.write_run("alive", done=5)
    live(run)
    runs = RunList()
    (before,) = runs.read()
    assert len(before.rewards) == 5
    writer = RunWriter(run)  # left open: what it writes is only in the write-ahead log
    writer.write_step(fixed_run.step_record(6))
    (after,) = runs.read()
    assert (after.step, after.rewards[:5]) == (6, before.rewards)
    rename_run(run, "renamed")
    pin_run(run, True)
    (after,) = runs.read()
    assert (after.name, after.pinned) == ("renamed", True)
    writer.close()


def test_a_damaged_database_leaves_the_rest_of_the_row() -> None:
    run = fixed_run.write_run("damaged", done=5, state="stopped")
    run.database.write_bytes(b"no database at all, but long enough to be looked at" * 20)
    (row,) = RunList().read()
    assert (row.name, row.state, row.step, row.reward) == ("damaged", "stopped", 0, None)


def test_a_run_was_made_when_its_id_says() -> None:
    assert created(fixed_run.new_run("x")) == fixed_run.STARTED


def machine(memory: int, *cards: int) -> Machine:
    """Return a machine with this many GiB of memory, all free, and cards of these sizes."""
    found = tuple(Gpu("NVIDIA GeForce RTX 3060", size << 10, 0, None, None, None, None) for size in cards)
    return Machine(4, 0.0, memory << 10, memory << 10, found)


def preset(model_id: str, device: str = "auto") -> PresetRow:
    task: dict[str, Any] = {"source": "arithmetic", "max_prompt_tokens": 256}
    rollout = {"prompts_per_step": 4, "group_size": 8, "max_new_tokens": 256}
    return PresetRow(
        "p", "p", [], resolve({"model": {"id": model_id, "device": device}, "task": task} | {"rollout": rollout})
    )


@pytest.mark.parametrize(
    ("found", "device", "verdict", "against"),
    [
        (machine(8, 12), "auto", "fits", "RTX 3060, 12.0 GB free"),
        (machine(8, 1), "cuda", "tight", "RTX 3060, 1.0 GB free"),
        (machine(64, 0), "cuda", "too large", "RTX 3060, 0.0 GB free"),
        (machine(16), "auto", "fits", "no GPU, 16.0 GB of RAM free"),
        (machine(2), "cpu", "tight", "no GPU, 2.0 GB of RAM free"),
        (machine(16), "cuda", "no GPU", "no GPU, 16.0 GB of RAM free"),
    ],
)
def test_a_preset_is_held_against_the_card_or_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Machine, device: str, verdict: str, against: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMOLLM2_135M), encoding="utf-8")
    monkeypatch.setattr(hardware, "machine", lambda: found)
    (row,), said = judge_presets([preset(str(tmp_path), device)])
    assert row.fit is not None
    assert (row.fit.verdict, said) == (verdict, against)
    assert "needs at least " in row.fit.detail


def test_a_model_that_is_not_here_is_not_guessed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hardware, "machine", lambda: machine(16))
    (row,), _ = judge_presets([preset(str(tmp_path / "missing"))])
    assert row.fit is not None
    assert row.fit.verdict == "unknown"


def test_a_preset_that_cannot_be_used_is_not_judged() -> None:
    (row,), _ = judge_presets([PresetRow("broken", "broken", [], None, "not YAML")])
    assert row.fit is None
