"""Studies on the screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from aapo_desk.studies import running
from aapo_desk.studies.study import Study
from aapo_desk.tui.screens.home import HomeScreen
from aapo_desk.tui.screens.study import StudyScreen
from tests import studied
from tests.tui.driving import NARROW, Desk, press, settle, shown

Snapshot = Callable[..., bool]


@pytest.fixture
def study(desk_home: Path) -> Study:
    """Five of six runs have finished, one has failed."""
    return studied.write_study("sums")


async def opened(pilot: Pilot[Any]) -> None:
    await settle(pilot)
    await press(pilot, "u")
    await settle(pilot)


def then(*keys: str) -> Callable[[Pilot[Any]], Any]:
    async def run_before(pilot: Pilot[Any]) -> None:
        await opened(pilot)
        await press(pilot, *keys)

    return run_before


@pytest.mark.usefixtures("study")
@pytest.mark.parametrize("size", [NARROW, (160, 50)])
def test_study(snap_compare: Snapshot, desk: Desk, size: tuple[int, int]) -> None:
    assert snap_compare(desk(), terminal_size=size, run_before=then())


@pytest.mark.usefixtures("study")
def test_study_runs(snap_compare: Snapshot, desk: Desk) -> None:
    assert snap_compare(desk(), terminal_size=NARROW, run_before=then("o", "o"))


@pytest.mark.usefixtures("study")
async def test_views_turn_and_escape_leads_home(desk: Desk) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await opened(pilot)
        assert isinstance(app.screen, StudyScreen)
        assert "5 of 6 runs finished, 1 failed" in shown(app)
        assert "no difference seen" in shown(app)
        await press(pilot, "o")
        assert "with margin" in shown(app)
        await press(pilot, "o")
        assert "the disk is full" in shown(app)
        await press(pilot, "o", "escape")
        assert isinstance(app.screen, HomeScreen)


@pytest.mark.usefixtures("desk_home")
async def test_without_a_study_it_says_how_to_start_one(desk: Desk) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await opened(pilot)
        assert "aapo-desk study demo --algorithms aapo,grpo,gpg" in shown(app)
        await press(pilot, "o", "r", "down", "escape")
        assert isinstance(app.screen, HomeScreen)


@pytest.mark.usefixtures("study")
async def test_the_one_under_the_cursor_is_shown_and_what_happens_is_followed(desk: Desk) -> None:
    newer = studied.make_study("newer [bold]", ("aapo", "gpg"), seeds=1)
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await opened(pilot)
        assert "0 of 2 runs finished" in shown(app)
        assert "newer [bold]" in shown(app)
        assert "no steps yet" in shown(app)
        await press(pilot, "down")
        assert "5 of 6 runs finished" in shown(app)
        await press(pilot, "up")
        studied.end(newer)
        assert isinstance(app.screen, StudyScreen)
        app.screen._read()
        await settle(pilot)
        assert "2 of 2 runs finished" in shown(app)
        assert "over problems; other seeds may differ" in shown(app)


@pytest.mark.usefixtures("desk_home")
async def test_what_is_left_is_gone_on_with_in_the_background(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    study = studied.make_study("sums")
    begun: list[Study] = []
    monkeypatch.setattr(running, "start_in_background", begun.append)
    for read_only in (True, False):
        app = desk(read_only=read_only)
        async with app.run_test(size=NARROW) as pilot:
            await opened(pilot)
            assert "not running" in shown(app)
            await press(pilot, "r")
    assert [each.id for each in begun] == [study.id]
