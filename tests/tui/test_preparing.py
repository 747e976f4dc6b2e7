from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from textual.app import App

from aapo_desk import launch
from aapo_desk.config import RunConfig
from aapo_desk.store import list_runs
from aapo_desk.tui.app import FAILED, WRONG_USE, DeskApp, run_app
from aapo_desk.tui.listing import PresetRow
from aapo_desk.tui.screens.home import HomeScreen
from aapo_desk.tui.screens.preparing import PreparingScreen
from tests.tui import fixed_run
from tests.tui.driving import NARROW, Desk, press, settle, shown


@pytest.fixture
def refused() -> RunConfig:
    """A configuration whose data file is missing."""
    return fixed_run.config(overrides={"task.source": "file:missing.jsonl", "task.options": {}})


@pytest.mark.parametrize("key", ["q", "x", "escape", "enter"])
async def test_a_refusal_is_shown_and_any_key_leaves_with_status_2(desk: Desk, refused: RunConfig, key: str) -> None:
    app = desk(start=(refused, None))
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        text = shown(app)
        assert "✗ Not started" in text
        assert "task.source = 'file:missing.jsonl': there is no such file" in text
        await pilot.press(key)
    assert app.return_value == WRONG_USE
    assert app.refusal is not None
    assert "missing.jsonl" in app.refusal
    assert list_runs() == []


async def test_from_home_any_key_leads_back(desk: Desk, refused: RunConfig, preset_rows: list[PresetRow]) -> None:
    preset_rows[0] = PresetRow("demo", "Demo", [], refused)
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "enter")
        assert "✗ Not started" in shown(app)
        await press(pilot, "x")
        assert isinstance(app.screen, HomeScreen)


async def test_escape_gives_up_and_nothing_is_started(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def preflight(config: RunConfig, progress: Callable[[str], None], cancelled: threading.Event) -> None:
        """One that has not ended when the key is pressed."""
        assert cancelled.wait(timeout=60)
        raise launch.LaunchError("cancelled; nothing was started")

    monkeypatch.setattr(launch, "preflight", preflight)
    app = desk(start=(fixed_run.config(), None))
    async with app.run_test(size=NARROW) as pilot:
        await pilot.pause()
        assert isinstance(app.screen, PreparingScreen)
        await pilot.press("escape")
    assert app.return_value == FAILED
    assert app.refusal == "cancelled; nothing was started"
    assert list_runs() == []


def test_run_app_prints_the_refusal_and_gives_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The app's own loop is left out: there is no terminal here."""

    def run(app: App[int], **_: Any) -> int | None:
        assert isinstance(app, DeskApp)
        app.refuse("task.source: there is no such file", wrong_use=True)
        return app.return_value

    monkeypatch.setattr(App, "run", run)
    assert run_app(start=(fixed_run.config(), None)) == WRONG_USE
    assert capsys.readouterr().err == "task.source: there is no such file\n"
