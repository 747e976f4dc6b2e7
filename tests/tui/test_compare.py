"""Compare on the screen."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from aapo_desk.config import ConfigError
from aapo_desk.store import RunDirectory, RunWriter, StepRecord
from aapo_desk.tui.app import DeskApp
from aapo_desk.tui.screens.compare import CompareScreen
from aapo_desk.tui.widgets.braille import Frame
from aapo_desk.tui.widgets.overlay import Line, overlay, resampled, sample
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


@pytest.fixture
def two(desk_home: Path) -> list[RunDirectory]:
    return [
        compared_runs.write_run("one", steps=10, middle=5),
        compared_runs.write_run("two", steps=8, middle=3, overrides={"lora.r": 4}),
    ]


async def test_keys_choose_axis_smoothing_and_metric(desk: Desk, two: list[RunDirectory]) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        screen = await opened(app, pilot, two)
        assert "reward by step, exponential mean 0.8" in shown(app)
        await press(pilot, "x")
        assert "reward by training time, exponential mean 0.8" in shown(app)
        await press(pilot, "x", "e")
        assert "reward by completion tokens, exponential mean 0.95" in shown(app)
        await press(pilot, "e", "e", "x")
        assert "reward by step" in shown(app)
        assert "exponential mean" not in shown(app)
        await press(pilot, "m", "j", "j", "enter")
        assert screen.metric == "entropy"
        assert "entropy by step" in shown(app)
        last = [f"{1.2 - step / 50:.3f}" for step in (10, 8)]
        assert [value in shown(app) for value in last] == [True, True]
        await press(pilot, "m", "escape")
        assert app.screen is screen


async def test_the_cursor_shows_each_run_at_one_place_and_its_distance_there(
    desk: Desk, two: list[RunDirectory]
) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        screen = await opened(app, pilot, two)
        await press(pilot, "m", "j", "j", "enter", "e", "e", "e")
        assert screen.smoothing == 0.0
        assert "each run's last step" in shown(app)
        await press(pilot, "home")
        assert "at step 1 " in shown(app)
        assert "▲1" in shown(app)
        await press(pilot, "right", "l", "L")  # on the step axis a column is at least a step
        assert screen.cursor == 10
        assert "1.000" in shown(app)
        await press(pilot, "h", "left")
        row = next(line for line in shown(app).split("\n") if line.startswith("B "))
        assert row.split()[-2:] == ["1.040", "+0.000"]
        await press(pilot, "end")
        assert screen.cursor is None
        await pilot.click("#overlay", offset=(6, 5))
        await settle(pilot)
        assert screen.cursor == 1


async def test_a_run_that_grows_is_followed(desk: Desk, two: list[RunDirectory]) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        screen = await opened(app, pilot, two)
        writer = RunWriter(two[1])
        writer.write_step(StepRecord(9, compared_runs.BEGAN + 54, {"reward": 0.123}, {}, []))
        writer.close()
        screen.smoothing = 0.0
        await settle(pilot)
        row = next(line for line in shown(app).split("\n") if line.startswith("B "))
        assert "0.123" in row
        assert "  9  " in row


async def test_views_turn_where_there_is_room_for_one(desk: Desk, two: list[RunDirectory]) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await opened(app, pilot, two)
        assert "lora.r" not in shown(app)
        await press(pilot, "o")
        assert "held out: base → tuned" in shown(app)
        await press(pilot, "o")
        assert "lora.r        16  4" in shown(app)
        await press(pilot, "o", "escape")
        assert not isinstance(app.screen, CompareScreen)


async def test_runs_without_steps_say_so(desk: Desk, desk_home: Path) -> None:
    app = desk()
    runs = [compared_runs.write_run(name, steps=0, right=None) for name in ("one", "[bold]two\x1b[2J")]
    async with app.run_test(size=NARROW) as pilot:
        await opened(app, pilot, runs)
        assert "no steps yet" in shown(app)
        assert "[bold]two␛[2J" in shown(app)
        await press(pilot, "left", "home", "m")
        assert isinstance(app.screen, CompareScreen)


async def test_a_run_that_cannot_be_read_is_told_beside_the_others(desk: Desk, two: list[RunDirectory]) -> None:
    two[1].database.write_bytes(b"no database at all, but long enough to be looked at " * 40)
    app = desk()
    async with app.run_test(size=WIDE) as pilot:
        await opened(app, pilot, two)
        assert "B: " in shown(app)
        assert "run.db is damaged" in "".join(shown(app).split("\n"))


async def save_as(app: DeskApp, pilot: Pilot[Any], name: Path) -> None:
    app.screen.query_one(Input).value = str(name)
    await press(pilot, "enter")


def said(app: DeskApp) -> str:
    return str(app.screen.query_one("#save-said", Static).content)


async def test_it_is_saved_as_what_the_ending_tells(desk: Desk, two: list[RunDirectory], tmp_path: Path) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        screen = await opened(app, pilot, two)
        await press(pilot, "s")
        assert app.screen.query_one(Input).value == "compare-reward.png"
        await save_as(app, pilot, tmp_path / "out.gif")
        assert "must end in .png or .svg or .csv" in said(app)
        await save_as(app, pilot, tmp_path / "gone" / "out.csv")
        assert ": No such file or directory" in said(app)
        await save_as(app, pilot, tmp_path / "out.csv")
        assert app.screen is screen
        assert (tmp_path / "out.csv").read_text().count("\n") == 19
        await press(pilot, "s")
        await save_as(app, pilot, tmp_path / "out.csv")
        assert "Press Enter again to replace it" in said(app)
        await press(pilot, "escape")
        assert app.screen is screen


async def test_home_opens_what_is_marked_or_the_run_at_hand_beside_the_pinned_one(
    desk: Desk, two: list[RunDirectory]
) -> None:
    third = compared_runs.write_run("three", steps=2)
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "x")
        assert [each.message for each in app._notifications][-1].startswith("Mark at least two runs with space")
        await press(pilot, "space", "j", "j", "space", "x")
        assert isinstance(app.screen, CompareScreen)
        assert [run.name for run in app.screen.runs] == ["three", "one"]
        await press(pilot, "escape", "escape", "p")  # the list is read again, in a thread
        await press(pilot, "j", "x")
        assert isinstance(app.screen, CompareScreen)
        assert "baseline A: one (pinned)" in shown(app)
        assert [run.id for run in app.screen.runs] == [two[0].id, third.id]


def test_more_runs_than_have_a_letter_are_refused(desk_home: Path) -> None:
    runs = [compared_runs.write_run(str(number), steps=0, right=None) for number in range(7)]
    with pytest.raises(ConfigError, match="1 to 6 runs"):
        CompareScreen(runs)


def test_each_line_has_its_own_dashes_and_its_letter_on_it() -> None:
    assert len({sample(letter) for letter in "ABCDEF"}) == 6
    lines = [Line(letter, [0.0, 10.0], [height, height]) for letter, height in zip("ABCDEF", range(6), strict=True)]
    rows = overlay(lines, 40, 12, Frame(0, 10, 0, 5))
    for letter in "ABCDEF":
        (row,) = [row for row in rows if any(name == f"{letter}*" for _, name in row)]
        assert [text for text, name in row if name == f"{letter}*"] == [letter, letter]
        assert row[-1] == (letter, f"{letter}*")


def test_a_line_breaks_where_values_are_missing_and_ends_where_the_run_does() -> None:
    line = Line("A", [0.0, 2.0, 4.0, 6.0, 8.0], [1.0, 3.0, math.nan, 5.0, 5.0])
    path = resampled(line, 11, Frame(0, 10, 0, 5))
    assert path[:3] == [1.0, 2.0, 3.0]
    assert all(math.isnan(value) for value in path[3:6])
    assert path[6:9] == [5.0, 5.0, 5.0]
    assert all(math.isnan(value) for value in path[9:])
