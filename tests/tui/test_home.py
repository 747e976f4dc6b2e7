from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
from rich.cells import cell_len
from textual import events
from textual.coordinate import Coordinate
from textual.widgets import Input, OptionList

from aapo_desk.store import RunDirectory, list_runs, rename_run
from aapo_desk.tui.app import DeskApp
from aapo_desk.tui.screens.dialogs import StartQuestion
from aapo_desk.tui.screens.home import HomeScreen
from aapo_desk.tui.screens.managing import DeleteQuestion, RenameDialog
from aapo_desk.tui.screens.monitor import MonitorScreen
from aapo_desk.tui.screens.preparing import PreparingScreen
from aapo_desk.tui.widgets.runtable import RunTable
from tests.tui import fixed_run
from tests.tui.driving import NARROW, Desk, Live, press, settle, shown, until


def home(app: DeskApp) -> HomeScreen:
    assert isinstance(app.screen, HomeScreen)
    return app.screen


def listed(app: DeskApp) -> list[str]:
    """The names in the table, from above."""
    table = app.screen.query_one(RunTable)
    return [str(table.get_cell_at(Coordinate(row, 2))).strip() for row in range(table.row_count)]


def said(app: DeskApp) -> list[str]:
    return [each.message for each in app._notifications]


@pytest.fixture
def three() -> list[RunDirectory]:
    """Runs that have ended, the newest first."""
    return [
        fixed_run.write_run("gamma", "20260102-100000-aaaa", done=7, state="stopped"),
        fixed_run.write_run("alpha", "20260101-100000-aaaa", done=40, state="finished"),
        fixed_run.write_run("beta", "20251225-100000-aaaa", done=17),
    ]


async def test_runs_are_listed_newest_first_with_their_state_in_words(desk: Desk, live: Live) -> None:
    live(fixed_run.write_run("alive", "20260102-100000-aaaa"))
    fixed_run.write_run("done", "20260101-100000-aaaa", done=40, state="finished")
    fixed_run.write_run("crashed", "20251225-100000-aaaa", done=7)
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        lines = shown(app).split("\n")
        rows = [" ".join(line.split()) for line in lines if "SmolLM2-135M-…" in line]
        assert rows == [
            "▶ running alive SmolLM2-135M-… 30/40 0.75 ▂▂▂▃▃▄▅▅▆▆▇ 3 min",
            "✓ finished done SmolLM2-135M-… 40/40 0.69 ▂▂▃▃▄▆▆▇▆▆▇ 1 d",
            "✗ crashed crashed SmolLM2-135M-… 7/40 0.25 ▅▆▄▂▆▅▇ 8 d",
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
        assert said(app) == ["broken.yaml: is not valid YAML (line 3)"]


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


async def test_a_click_moves_another_opens_and_one_at_the_edge_marks(desk: Desk, three: list[RunDirectory]) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.click(RunTable, offset=(0, 3))
        await settle(pilot)
        assert home(app).marked() == [three[2]]
        await pilot.click(RunTable, offset=(20, 2))
        await settle(pilot)
        assert isinstance(app.screen, HomeScreen)
        await pilot.click(RunTable, offset=(50, 2))
        await settle(pilot)
        assert isinstance(app.screen, MonitorScreen)
        assert app.screen.run_directory == three[1]


async def test_leaving_says_how_many_runs_go_on(desk: Desk, live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    live(fixed_run.write_run(done=1))
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("ctrl+c")
    assert app.return_value == 0
    assert "1 run continues" in capsys.readouterr().err


async def test_typing_a_filter_lists_what_matches_and_esc_lists_all(desk: Desk, three: list[RunDirectory]) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "slash", "f", "i", "n")
        assert listed(app) == ["alpha"]
        assert "1 of 3" in shown(app)
        await press(pilot, "enter", "enter")
        assert isinstance(app.screen, MonitorScreen)
        assert app.screen.run_directory.name == "alpha"
        await press(pilot, "escape")
        assert listed(app) == ["alpha"]
        await press(pilot, "escape")
        assert listed(app) == ["gamma", "alpha", "beta"]
        assert app.screen.query_one(RunTable).has_focus


async def test_what_is_typed_right_behind_the_filters_key_is_not_taken_for_keys(
    desk: Desk, three: list[RunDirectory]
) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        for character in ("/", "n", "d"):  # all there before the first is answered, as on a machine that trains
            app.post_message(events.Key("slash" if character == "/" else character, character))
        await settle(pilot)
        assert isinstance(app.screen, HomeScreen)  # no form, and nothing is to be deleted
        assert app.screen.query_one("#filter", Input).has_focus


async def test_letters_that_are_keys_are_typed_into_the_filter(desk: Desk, three: list[RunDirectory]) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "slash", *"qsdp", "slash", "space", "question_mark")
        assert app.screen.query_one("#filter", Input).value == "qsdp/ ?"
        assert "No run matches" in shown(app)
        await press(pilot, "enter", "space", "p", "r", "d")  # nothing is under the cursor
        assert isinstance(app.screen, HomeScreen)
        assert home(app).marked() == []
        await press(pilot, "escape")
        assert len(listed(app)) == 3


async def test_s_goes_on_to_the_next_column_and_shift_s_turns_round(desk: Desk, three: list[RunDirectory]) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert "age↑" in shown(app)
        await press(pilot, "s", "s")
        assert "name↑" in shown(app)
        assert listed(app) == ["alpha", "beta", "gamma"]
        await press(pilot, "S")
        assert "name↓" in shown(app)
        assert listed(app) == ["gamma", "beta", "alpha"]


async def test_a_click_on_a_column_sorts_by_it_and_another_turns_round(desk: Desk, three: list[RunDirectory]) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.click(RunTable, offset=(16, 0))
        await settle(pilot)
        assert listed(app) == ["alpha", "beta", "gamma"]
        await pilot.click(RunTable, offset=(16, 0))
        await settle(pilot)
        assert listed(app) == ["gamma", "beta", "alpha"]


async def test_the_cursor_stays_on_its_run_when_the_order_changes(desk: Desk, three: list[RunDirectory]) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "j", "S")
        row = app.screen.query_one(RunTable).under_cursor
        assert row is not None
        assert row.name == "alpha"
        await press(pilot, "G")
        assert app.screen.query_one(RunTable).cursor_row == 2
        await press(pilot, "g")
        assert app.screen.query_one(RunTable).cursor_row == 0


async def test_space_marks_runs_and_esc_takes_the_marks_away(desk: Desk, three: list[RunDirectory]) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "down", "down", "space", "up", "up", "space")
        assert home(app).marked() == [three[0], three[2]]
        assert "● 2 marked" in shown(app)
        assert shown(app).count("●") == 3
        await press(pilot, "slash", *"alpha")
        assert home(app).marked() == [three[0], three[2]]  # also while a filter hides them
        await press(pilot, "escape", "home", "g", "space")
        assert home(app).marked() == [three[2]]
        await press(pilot, "escape")
        assert home(app).marked() == []


async def test_a_pinned_run_is_on_top_with_a_sign_and_stays_there(desk: Desk, three: list[RunDirectory]) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "down", "down", "p")
        assert listed(app) == ["◆ beta", "gamma", "alpha"]
        assert three[2].read_meta()["pinned"] is True
        await press(pilot, "s", "s", "S")
        assert listed(app) == ["◆ beta", "gamma", "alpha"]
        await press(pilot, "p")
        assert listed(app) == ["gamma", "beta", "alpha"]


async def test_a_run_is_renamed_in_place(desk: Desk, three: list[RunDirectory]) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "r")
        assert isinstance(app.screen, RenameDialog)
        assert app.screen.query_one(Input).value == "gamma"
        await press(pilot, *"-2", "enter")
        assert three[0].name == "gamma-2"
        assert listed(app) == ["gamma-2", "alpha", "beta"]
        await press(pilot, "r", "x", "escape")
        assert three[0].name == "gamma-2"


async def test_a_name_that_is_taken_or_has_a_slash_is_refused_while_one_types(
    desk: Desk, three: list[RunDirectory]
) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "r", "ctrl+u", *"alpha")
        assert "a run with this name exists" in shown(app)
        await press(pilot, "slash", "enter")
        assert "without slashes" in shown(app)
        assert isinstance(app.screen, RenameDialog)
        assert three[0].name == "gamma"


async def test_a_name_taken_meanwhile_is_refused_too(desk: Desk, three: list[RunDirectory]) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "r", *"-2")
        rename_run(three[1], "gamma-2")
        await press(pilot, "enter")
        assert "a run with this name exists" in shown(app)
        assert three[0].name == "gamma"


async def test_deleting_asks_and_removes_the_folder(desk: Desk, three: list[RunDirectory]) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "down", "d")
        assert isinstance(app.screen, DeleteQuestion)
        assert "Delete alpha?" in shown(app)
        await press(pilot, "enter")  # the safe answer is the default
        assert three[1].path.is_dir()
        await press(pilot, "d", "y")
        assert listed(app) == ["gamma", "beta"]
        assert not three[1].path.exists()
        assert said(app) == ["Deleted alpha."]


async def test_a_live_run_is_not_deleted_and_it_is_said_what_to_do(desk: Desk, run: RunDirectory) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "d")
        assert isinstance(app.screen, HomeScreen)
        assert said(app) == ["sums-first-try is running. Open it and stop it with s, then delete it."]
        assert run.path.is_dir()


async def test_a_run_that_came_alive_while_one_was_asked_stays(
    desk: Desk, three: list[RunDirectory], live: Live
) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "d")
        fixed_run.put_status(three[0], "running", 7, 0.0)
        live(three[0])
        await press(pilot, "y")
        assert three[0].path.is_dir()
        assert "gamma is running; stop it first" in said(app)[0]


async def test_what_cannot_be_removed_is_said_with_its_place(
    desk: Desk, three: list[RunDirectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = three[0].checkpoints / "step_000005"

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(kept))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "d", "y")
        assert said(app) == [f"Could not delete all of gamma (Permission denied). Delete {kept} by hand."]
        # A reading that was under way when it was removed still had it: the next one has not.
        await until(pilot, lambda: listed(app) == ["alpha", "beta"])


async def test_presets_show_whether_they_fit_and_the_question_says_more(desk: Desk) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        text = shown(app)
        assert "✓ fits" in text
        assert "no GPU, 14.2 GB of RAM free" in text
        await press(pilot, "enter")
        assert "at least 0.9 GB" in shown(app)


async def test_an_empty_home_has_nothing_to_filter_or_sort(desk: Desk) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        actions = {active.binding.action for active in app.screen.active_bindings.values()}
        assert not actions & {"filter", "sort", "reverse", "clear"}


async def test_every_key_of_the_list_is_in_the_palette(desk: Desk, three: list[RunDirectory]) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "space")
        offered = {command.title for command in app.get_system_commands(app.screen)}
        assert {"Open", "Mark", "Pin", "Rename", "Delete", "Filter", "Sort", "Reverse", "Clear"} <= offered


async def test_names_from_elsewhere_are_text_and_break_no_column(desk: Desk) -> None:
    names = ["[red]x[/] \x1b[31m", "日本語の名前がとても長いとき", "a\u202eb", "e\u0301" * 30]
    for number, name in enumerate(names):
        made = fixed_run.write_run(f"run-{number}", f"2026010{number + 1}-100000-aaaa", done=3, state="stopped")
        made.meta.write_text(json.dumps({"name": name}), encoding="utf-8")
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        lines = [line for line in shown(app).split("\n") if "■ stopped" in line]
        assert len(lines) == len(names)
        assert {cell_len(line) for line in lines} == {NARROW[0]}
        assert {cell_len(line[: line.index("SmolLM2")]) for line in lines} == {31}
        assert "[red]x[/] ␛[31m" in lines[3]
        await press(pilot, "r")
        assert isinstance(app.screen, RenameDialog)
