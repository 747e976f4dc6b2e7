from __future__ import annotations

import pytest
from textual.binding import Binding

from aapo_desk.store import RunDirectory, list_runs
from aapo_desk.tui.keys import offers
from aapo_desk.tui.screens.home import HomeScreen
from aapo_desk.tui.screens.monitor import MonitorScreen
from aapo_desk.tui.screens.new_run import NewRunScreen
from aapo_desk.tui.widgets.runtable import RunTable
from tests.tui import fixed_run
from tests.tui.driving import NARROW, WIDE, Desk, Live, commands, monitor, press, settle, shown


def said(app: object) -> list[str]:
    return [notification.message for notification in app._notifications]  # type: ignore[attr-defined]


async def test_a_run_is_watched_and_nothing_is_asked_of_it(desk: Desk, run: RunDirectory) -> None:
    app = desk(run, read_only=True)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert said(app) == ["Read-only: runs are shown; nothing can be started or changed."]
        await press(pilot, "p", "s", "c", "r", "left", "left")
        assert isinstance(app.screen, MonitorScreen)
        assert monitor(app).step == 28
        assert commands(run) == []
        footer = shown(app).split("\n")[-1]
        assert "Step" in footer
        for word in ("Pause", "Stop", "Save", "Resume"):
            assert word not in footer


@pytest.mark.parametrize("state", ["paused", "crashed"])
async def test_no_run_is_let_go_on_or_resumed(desk: Desk, live: Live, state: str) -> None:
    run = fixed_run.write_run(state="running" if state == "crashed" else state)
    if state == "paused":
        live(run)
    app = desk(run, read_only=True)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert state in shown(app)
        await press(pilot, "p", "r")
        assert commands(run) == []
        offered = {command.title for command in app.get_system_commands(app.screen)}
        assert not offered & {"Pause", "Continue", "Stop", "Save", "Resume"}
        assert offered >= {"Next step", "Home", "Help"}


async def test_a_preset_can_be_read_and_is_not_started(desk: Desk) -> None:
    app = desk(read_only=True)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "y")
        assert isinstance(app.screen, HomeScreen)
        assert said(app)[-1] == "Read-only: restart without --read-only to do this."
    assert list_runs() == []


async def test_no_run_is_renamed_pinned_or_deleted(desk: Desk, run: RunDirectory) -> None:
    before = {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    app = desk(read_only=True)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        offered = {command.title for command in app.get_system_commands(app.screen)}
        assert "Sort" in offered
        for key in offers((None, binding) for binding in Binding.make_bindings(RunTable.BINDINGS)):
            if key.action.rpartition(".")[2] in HomeScreen.ACTING:
                assert key.title not in offered
                await press(pilot, key.keys[0].key)
                assert isinstance(app.screen, HomeScreen)
    assert {path: path.read_bytes() for path in before} == before


async def test_the_form_can_be_read_and_neither_started_nor_saved(desk: Desk) -> None:
    app = desk(read_only=True)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "n")
        form = app.screen
        assert isinstance(form, NewRunScreen)
        await press(pilot, "ctrl+r", "ctrl+s", "ctrl+o")
        assert app.screen is form
    assert list_runs() == []


async def test_without_the_option_the_keys_are_there(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert said(app) == []
        for word in ("Pause", "Stop"):
            assert word in shown(app).split("\n")[-1]
