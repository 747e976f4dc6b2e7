from __future__ import annotations

import pytest
from textual.widgets import OptionList

from aapo_desk.store import list_runs
from aapo_desk.tui.app import DeskApp
from aapo_desk.tui.screens.dialogs import StartQuestion
from aapo_desk.tui.screens.home import HomeScreen, RunTable
from aapo_desk.tui.screens.monitor import MonitorScreen
from aapo_desk.tui.screens.preparing import PreparingScreen
from tests.tui import fixed_run
from tests.tui.driving import NARROW, Desk, Live, press, settle, shown


def home(app: DeskApp) -> HomeScreen:
    assert isinstance(app.screen, HomeScreen)
    return app.screen


async def test_runs_are_listed_newest_first_with_their_state_in_words(desk: Desk, live: Live) -> None:
    live(fixed_run.write_run("alive", "20260102-100000-aaaa"))
    fixed_run.write_run("done", "20260101-100000-aaaa", done=40, state="finished")
    fixed_run.write_run("crashed", "20251225-100000-aaaa", done=7)
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        lines = shown(app).split("\n")
        rows = [" ".join(line.split()) for line in lines if "SmolLM2-135M-In…" in line]
        assert rows == [
            "▶ running alive SmolLM2-135M-In… 30/40 0.75 3 min",
            "✓ finished done SmolLM2-135M-In… 40/40 0.69 1 d",
            "✗ crashed crashed SmolLM2-135M-In… 7/40 0.25 8 d",
        ]
        assert "3 runs, 1 live" in lines[0]


async def test_enter_opens_the_run_under_the_cursor(desk: Desk) -> None:
    for number in range(3):
        fixed_run.write_run(f"run-{number}", f"2026010{number + 1}-100000-aaaa", done=1, state="stopped")
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "down", "enter")
        assert isinstance(app.screen, MonitorScreen)
        assert app.screen.run_directory.name == "run-1"


async def test_the_list_moves_while_one_looks_and_the_cursor_stays_on_its_run(desk: Desk, live: Live) -> None:
    run = fixed_run.write_run("alive", "20260102-100000-aaaa", done=5)
    live(run)
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        run.database.write_bytes(fixed_run.database(6, "running"))
        home(app)._read_runs()
        await settle(pilot)
        assert "6/40" in shown(app)
        fixed_run.write_run("newer", "20260103-100000-aaaa", done=1, state="stopped")
        home(app)._read_runs()
        await settle(pilot)
        table = app.screen.query_one(RunTable)
        assert (table.row_count, table.cursor_row) == (2, 1)


async def test_an_empty_home_leads_to_the_demo_in_two_keys(desk: Desk) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert "No runs yet" in shown(app)
        assert app.screen.query_one(OptionList).has_focus
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, StartQuestion)
        text = shown(app)
        for fact in ("Start demo?", "SmolLM2-135M-Instruct", "arithmetic", "AAPO", "40 of 4 prompts x 8", "two cores"):
            assert fact in text
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, PreparingScreen)
        await press(pilot, "escape")
        assert isinstance(app.screen, HomeScreen)
    assert list_runs() == []


async def test_no_starts_nothing(desk: Desk) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "n")
        assert isinstance(app.screen, HomeScreen)


async def test_a_broken_preset_says_what_is_wrong(desk: Desk) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "j", "enter")
        assert isinstance(app.screen, HomeScreen)
        (said,) = app._notifications
        assert said.message == "broken.yaml: is not valid YAML (line 3)"


async def test_tab_goes_between_runs_and_presets(desk: Desk) -> None:
    fixed_run.write_run(state="stopped", done=1)
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert app.screen.query_one(RunTable).has_focus
        await press(pilot, "tab")
        assert app.screen.query_one(OptionList).has_focus


async def test_runs_and_presets_take_the_mouse(desk: Desk) -> None:
    fixed_run.write_run(state="stopped", done=1)
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.click(OptionList, offset=(3, 0))
        await settle(pilot)
        assert isinstance(app.screen, StartQuestion)
        await pilot.click("#no")
        await settle(pilot)
        await pilot.click(RunTable, offset=(3, 1))
        await settle(pilot)
        assert isinstance(app.screen, MonitorScreen)


async def test_leaving_says_how_many_runs_go_on(desk: Desk, live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    live(fixed_run.write_run(done=1))
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("ctrl+c")
    assert app.return_value == 0
    assert "1 run goes on" in capsys.readouterr().err
