"""The monitor over a run of many steps: what it draws and reads is bounded."""

from __future__ import annotations

from typing import Any

import pytest
from textual._compositor import LayoutUpdate
from textual.screen import Screen

from aapo_desk.bench.long_run import trainer_of, write_run
from aapo_desk.store import RunDirectory
from aapo_desk.tui.trace import MOST
from aapo_desk.tui.widgets.chart import LineChart
from aapo_desk.tui.widgets.scrubber import Scrubber
from aapo_desk.tui.widgets.teaching import TeachingView
from tests.tui.driving import WIDE, Desk, monitor, press, read_again, settle, shown

STEPS = 5000


@pytest.fixture
def long_run() -> RunDirectory:
    return write_run("long", STEPS)


async def test_all_steps_are_there_and_few_of_them_are_drawn(desk: Desk, long_run: RunDirectory) -> None:
    app = desk(long_run)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        screen = monitor(app)
        assert list(screen.history.steps) == list(range(1, STEPS + 1))
        assert f"({STEPS})" in shown(app)
        for chart in screen.query(LineChart):
            assert all(len(series.ys) <= 2 * MOST for series in chart._series)
        assert len(screen.query_one(TeachingView)._all.before) <= MOST
        await press(pilot, "home")
        assert screen.step == 1
        assert "(1)" in shown(app)
        with trainer_of(long_run) as trainer:
            trainer.write_step()
            await read_again(pilot, app)
        assert screen.query_one(Scrubber).last == STEPS + 1
        assert screen.step == 1


async def test_a_step_back_draws_what_changes_and_lays_nothing_out(
    desk: Desk, long_run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = desk(long_run)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "h")
        drawn: list[Any] = []
        display = app._display

        def record(screen: Screen[Any], update: Any) -> None:
            drawn.append(update)
            display(screen, update)

        monkeypatch.setattr(app, "_display", record)
        layouts: list[object] = []
        app.screen.screen_layout_refresh_signal.subscribe(app.screen, layouts.append, immediate=True)
        await press(pilot, "h", "h")
        assert f"({STEPS - 3})" in shown(app)
        assert drawn
        assert not [update for update in drawn if isinstance(update, LayoutUpdate)]
        assert not layouts
