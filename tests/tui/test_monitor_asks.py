from __future__ import annotations

import pytest

from aapo_desk.store import RunDirectory
from aapo_desk.tui.screens.dialogs import StopQuestion
from aapo_desk.tui.screens.monitor import MonitorScreen
from tests.tui import fixed_run
from tests.tui.driving import NARROW, Desk, Live, commands, press, settle, shown


async def test_stop_asks_first_and_no_asks_nothing_of_the_trainer(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        for answer in (["n"], ["escape"], ["enter"]):  # the button that has the focus is the safe one
            await pilot.press("s")
            await pilot.pause()
            assert isinstance(app.screen, StopQuestion)
            await press(pilot, *answer)
            assert isinstance(app.screen, MonitorScreen)
            assert commands(run) == []


@pytest.mark.parametrize("answer", [["y"], ["left", "enter"]])
async def test_yes_asks_the_trainer_to_stop(desk: Desk, run: RunDirectory, answer: list[str]) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("s")
        await pilot.pause()
        await press(pilot, *answer)
        assert commands(run) == ["stop"]


async def test_the_stop_button_takes_the_mouse(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("s")
        await pilot.pause()
        await pilot.click("#yes")
        await settle(pilot)
        assert commands(run) == ["stop"]


async def test_pause_and_checkpoint_are_asked_for(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "p", "c")
        assert commands(run) == ["checkpoint", "pause"]


async def test_p_lets_a_paused_run_go_on(desk: Desk, live: Live) -> None:
    run = fixed_run.write_run(state="paused", phase="idle")
    live(run)
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert "‖ paused" in shown(app)
        assert "p Continue" in shown(app)
        await press(pilot, "p")
        assert commands(run) == ["resume"]


@pytest.mark.parametrize(
    ("state", "offered"),
    [
        ("running", ["Pause", "Stop"]),
        ("paused", ["Continue", "Stop"]),
        ("stopping", []),
        ("finished", []),
        ("stopped", ["Resume"]),
        ("failed", ["Resume"]),
    ],
)
async def test_only_what_can_be_done_in_its_state_is_offered(
    desk: Desk, live: Live, state: str, offered: list[str]
) -> None:
    run = fixed_run.write_run(state=state)
    if state in ("running", "paused", "stopping"):
        live(run)
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        keys = [key.description for key in app.screen.query("FooterKey")]  # type: ignore[attr-defined]
        assert [key for key in keys if key in ("Pause", "Continue", "Stop", "Resume")] == offered
        if not offered:
            await press(pilot, "p", "s", "c", "r")
            assert isinstance(app.screen, MonitorScreen)
            assert commands(run) == []


async def test_resume_is_offered_only_where_it_makes_sense(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert "r Resume" not in shown(app)


async def test_a_footer_key_takes_the_mouse(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        keys = {key.description: key for key in app.screen.query("FooterKey")}  # type: ignore[attr-defined]
        await pilot.click(keys["Pause"])
        await settle(pilot)
        assert commands(run) == ["pause"]
