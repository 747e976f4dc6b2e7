"""Compare on the screen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input

from aapo_desk.config import ConfigError
from aapo_desk.store import RunDirectory, RunWriter, StepRecord
from aapo_desk.tui.app import DeskApp
from aapo_desk.tui.screens.compare import CompareScreen
from tests import compared_runs
from tests.tui.driving import NARROW, WIDE, Desk, press, settle, shown

Snapshot = Callable[..., bool]


@pytest.fixture
def runs(desk_home: Path) -> list[RunDirectory]:
    """Six: of different lengths, one not evaluated, one without steps, one pinned."""
    write = compared_runs.write_run
    return [
        write("first try", overrides={"optimizer.learning_rate": 5e-5}, middle=24),
        write("grpo", overrides={"algorithm.name": "grpo"}, middle=20, right=(27, 66), pinned=True),
        write("banked", overrides={"algorithm.reference": "bank"}, middle=14, seconds=4.0, right=(27, 78)),
        write("stopped early", steps=26, overrides={"optimizer.learning_rate": 2e-4}, middle=10, state="stopped"),
        write("sums to a hundred, slowly", overrides={"lora.r": 32, "lora.alpha": 64}, middle=34, right=None),
        write("not begun", steps=0, right=None, state="stopped"),
    ]


async def opened(app: DeskApp, pilot: Pilot[Any], runs: list[RunDirectory]) -> CompareScreen:
    await settle(pilot)
    screen = CompareScreen(runs)
    app.push_screen(screen)
    await settle(pilot)
    return screen


def then(runs: list[RunDirectory], *keys: str) -> Callable[[Pilot[Any]], Any]:
    async def run_before(pilot: Pilot[Any]) -> None:
        assert isinstance(pilot.app, DeskApp)
        await opened(pilot.app, pilot, runs)
        await press(pilot, *keys)

    return run_before


@pytest.mark.parametrize("size", [NARROW, WIDE])
def test_compare(snap_compare: Snapshot, desk: Desk, runs: list[RunDirectory], size: tuple[int, int]) -> None:
    assert snap_compare(desk(), terminal_size=size, run_before=then(runs))


def test_compare_evaluations(snap_compare: Snapshot, desk: Desk, runs: list[RunDirectory]) -> None:
    assert snap_compare(desk(), terminal_size=NARROW, run_before=then(runs, "x", "home", "L", "L", "o"))


def test_compare_settings(snap_compare: Snapshot, desk: Desk, runs: list[RunDirectory]) -> None:
    assert snap_compare(desk(), terminal_size=NARROW, run_before=then(runs, "o", "o", "x", "x"))
