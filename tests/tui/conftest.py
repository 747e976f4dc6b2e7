"""A desk over fixed runs: fixed clock, fixed presets, UTC."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from aapo_desk.config import RunConfig
from aapo_desk.store import RunDirectory
from aapo_desk.tui.app import DeskApp
from aapo_desk.tui.listing import PresetFit, PresetRow
from tests.tui import fixed_run, waiting
from tests.tui.driving import Desk, Live

NOW = fixed_run.time_of(30) + 4.0


@pytest.fixture(autouse=True)
def fixed_surroundings(desk_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A home of its own, UTC, colours."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(autouse=True)
def no_idling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, a click and a pause wait for what is to be done, not for time."""
    monkeypatch.setattr("textual.pilot.wait_for_idle", waiting.nothing_runs)
    monkeypatch.setattr("textual.app.wait_for_idle", waiting.nothing_runs)
    monkeypatch.setattr(Pilot, "_wait_for_screen", waiting.all_drawn)


@pytest.fixture
def preset_rows() -> list[PresetRow]:
    """Two presets: one that can be started, one that cannot."""
    notes = ["Needs    two cores and 4 GB of memory.", "Launch   aapo-desk demo"]
    return [
        PresetRow("demo", "Demo: SmolLM2-135M learns to add", notes, fixed_run.config()),
        PresetRow("broken", "broken", [], None, "broken.yaml: is not valid YAML (line 3)"),
    ]


def judged(rows: Sequence[PresetRow]) -> tuple[list[PresetRow], str]:
    """As if on a machine without a GPU: what can be used fits."""
    fit = PresetFit("fits", "fits: needs at least 0.9 GB, 2.9 GB for full speed; 14.2 GB of RAM free")
    return [replace(row, fit=fit if row.config else None) for row in rows], "no GPU, 14.2 GB of RAM free"


@pytest.fixture
def desk(preset_rows: list[PresetRow]) -> Desk:
    """Makes an app whose clock stands still."""

    def make(
        run: RunDirectory | None = None, start: tuple[RunConfig, str | None] | None = None, **more: Any
    ) -> DeskApp:
        app = DeskApp(run, start, **more)
        app.clock = lambda: NOW
        app.read_presets = lambda: preset_rows
        app.judge_presets = judged
        app.animation_level = "none"
        return app

    return make


@pytest.fixture
def live() -> Iterator[Live]:
    """Holds a run's lock, as its trainer would."""
    with ExitStack() as held:

        def hold(run: RunDirectory) -> None:
            file = held.enter_context(run.lock.open("ab"))
            fcntl.flock(file, fcntl.LOCK_EX)

        yield hold


@pytest.fixture
def run(live: Live) -> RunDirectory:
    """A run with a living trainer, 30 of 40 steps done."""
    made = fixed_run.write_run()
    live(made)
    return made
