"""The monitor's charts: what is in sight, what the keys do, and that it is remembered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from textual.pilot import Pilot

from aapo_desk.store import RunDirectory, RunReader, RunWriter
from aapo_desk.tui.app import DeskApp
from aapo_desk.tui.charts import BY_NAME
from aapo_desk.tui.choices import ChartChoices, save_choices
from aapo_desk.tui.screens.home import HomeScreen
from aapo_desk.tui.screens.monitor import MonitorScreen
from aapo_desk.tui.widgets.charts import Charts
from aapo_desk.tui.widgets.heatmap import HeatMap
from tests.tui import fixed_run
from tests.tui.driving import NARROW, WIDE, Desk, Live, monitor, press, read_again, resize, settle, shown
from tests.tui.test_snapshots import then

NEXT, PREVIOUS, LATER = "right_square_bracket", "left_square_bracket", "right_curly_bracket"
CARD = {"name": "NVIDIA GeForce RTX 4070", "memory_total": 12288, "utilisation": 91, "temperature": 63, "power": 180.0}


@pytest.fixture
def run(run: RunDirectory) -> RunDirectory:
    """With a card that was looked at after each step."""
    writer = RunWriter(run)
    for step in range(30):
        card = {**CARD, "utilisation": 60 + step, "memory_used": 7000}
        cpu = {"cores": 16, "cpu_percent": 30.0 + step % 5, "memory_total": 24576, "memory_available": 16384}
        writer.write_system({**cpu, "gpus": [card]})
    writer.close()
    return run


def charts(app: DeskApp) -> Charts:
    return app.screen.query_one(Charts)


@asynccontextmanager
async def watched(desk: Desk, run: RunDirectory, size: tuple[int, int]) -> AsyncIterator[tuple[DeskApp, Pilot[int]]]:
    """The monitor over a run, all of it read and drawn."""
    app = desk(run)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        yield app, pilot


def in_sight(app: DeskApp) -> list[str]:
    return [(plot.id or "").removeprefix("chart-") for plot in charts(app).children if plot.display]


async def test_a_narrow_terminal_shows_one_chart_and_the_keys_go_through_all_of_them(
    desk: Desk, run: RunDirectory
) -> None:
    async with watched(desk, run, NARROW) as (app, pilot):
        seen = []
        for _ in BY_NAME:
            assert in_sight(app) == [charts(app).chosen]
            assert BY_NAME[charts(app).chosen].title in shown(app)
            seen += in_sight(app)
            await press(pilot, NEXT)
        assert seen == list(BY_NAME)
        assert in_sight(app) == ["reward"]
        await press(pilot, PREVIOUS)
        assert in_sight(app) == [list(BY_NAME)[-1]]


async def test_a_wide_terminal_shows_a_page_of_charts_and_turns_it_with_the_chosen_one(
    desk: Desk, run: RunDirectory
) -> None:
    async with watched(desk, run, WIDE) as (app, pilot):
        assert in_sight(app) == list(BY_NAME)[:4]
        await press(pilot, *[NEXT] * 3)
        assert in_sight(app) == list(BY_NAME)[:4]
        await press(pilot, NEXT)
        assert in_sight(app) == list(BY_NAME)[4:8]
        assert "▸truncated" in shown(app)


@pytest.mark.parametrize(
    ("name", "sight"), [("seconds", "░ reward 0.1 s"), ("memory_mb", "RTX 4070 89 % 6.8/12.0 GB 63 °C")]
)
async def test_what_belongs_to_a_chart_stands_below_it(desk: Desk, run: RunDirectory, name: str, sight: str) -> None:
    async with watched(desk, run, NARROW) as (app, pilot):
        assert "rows that teach" in shown(app)
        charts(app).chosen = name
        await settle(pilot)
        assert sight in shown(app)
        assert "rows that teach" not in shown(app)


async def test_the_loss_is_explained_where_it_is_shown(desk: Desk, run: RunDirectory) -> None:
    async with watched(desk, run, NARROW) as (app, pilot):
        charts(app).chosen = "loss"
        await settle(pilot)
        assert "watch reward" in shown(app)


async def test_the_cursor_tells_the_values_of_all_series_at_its_step(desk: Desk, run: RunDirectory) -> None:
    async with watched(desk, run, NARROW) as (app, pilot):
        await press(pilot, "e", "home", *["right"] * 11)
        metrics = fixed_run.step_record(12).metrics
        title = next(line for line in shown(app).split("\n") if line.startswith("reward"))
        assert f"policy {metrics['reward']:.2f}" in title
        assert f"reference {metrics['reference_reward']:.2f}" in title
        assert "▲12" in shown(app)


async def test_the_smooth_line_can_be_switched_off_and_the_axis_made_logarithmic(desk: Desk, run: RunDirectory) -> None:
    async with watched(desk, run, NARROW) as (app, pilot):
        charts(app).chosen = "grad_norm"
        await settle(pilot)
        assert "⠐⠂ each step" in shown(app)
        await press(pilot, "e")
        assert "⠐⠂" not in shown(app)
        assert "gradient norm  each step" in shown(app)
        await press(pilot, "y")
        assert "log, each step" in shown(app)
        assert " 0.0 ┤" not in shown(app)
        await press(pilot, "e", "y")
        assert "gradient norm  ━━" in shown(app)


async def test_a_logarithmic_axis_without_anything_above_0_says_that_there_is_nothing(
    desk: Desk, run: RunDirectory
) -> None:
    async with watched(desk, run, NARROW) as (app, pilot):
        writer = RunWriter(run)
        record = fixed_run.step_record(31)
        writer.rewind(0)
        writer.write_step(replace(record, step=1, metrics={**record.metrics, "reward": 0.0, "reference_reward": 0.0}))
        writer.close()
        await read_again(pilot, app)
        await press(pilot, "y")
        assert "no value above 0 in any step so far" in shown(app)


async def test_m_gives_one_chart_all_the_room_and_escape_gives_it_back(desk: Desk, run: RunDirectory) -> None:
    async with watched(desk, run, WIDE) as (app, pilot):
        await press(pilot, NEXT, "m")
        assert in_sight(app) == ["teaching"]
        assert charts(app).size.height > 30
        assert "The margin gives one even if a group ties" in shown(app)
        await press(pilot, NEXT)
        assert in_sight(app) == ["advantage_map"]
        await press(pilot, "escape")
        assert isinstance(app.screen, MonitorScreen)
        assert len(in_sight(app)) == 4
        await press(pilot, "m", "m")
        assert len(in_sight(app)) == 4
        await press(pilot, "escape")
        assert isinstance(app.screen, HomeScreen)


async def test_w_shows_as_many_charts_as_the_whole_screen_holds(desk: Desk, run: RunDirectory) -> None:
    async with watched(desk, run, WIDE) as (app, pilot):
        await press(pilot, "w")
        assert len(in_sight(app)) == 12
        assert not app.screen.query_one("#histograms").display
        await press(pilot, "w")
        assert len(in_sight(app)) == 4
        assert app.screen.query_one("#histograms").display


async def test_a_hidden_chart_stays_hidden_the_next_time_and_comes_back_when_asked(
    desk: Desk, run: RunDirectory
) -> None:
    async with watched(desk, run, NARROW) as (app, pilot):
        await press(pilot, NEXT, "x", LATER)
        assert in_sight(app) == ["advantage_map"]
    async with watched(desk, run, WIDE) as (again, pilot):
        assert in_sight(again) == ["reward", "completion_tokens", "advantage_map", "truncated"]
        await press(pilot, "X")
        assert "teaching" in charts(again).choices.visible


async def test_the_last_chart_cannot_be_hidden(desk: Desk, run: RunDirectory) -> None:
    save_choices(ChartChoices(hidden=tuple(name for name in BY_NAME if name not in ("loss", "entropy"))))
    async with watched(desk, run, NARROW) as (app, pilot):
        await press(pilot, "x", "x")
        assert in_sight(app) == charts(app).choices.visible == ["loss"]


async def test_a_click_chooses_the_chart_and_the_step(desk: Desk, run: RunDirectory) -> None:
    async with watched(desk, run, WIDE) as (app, pilot):
        await pilot.click("#chart-teaching", offset=(6, 3))
        await settle(pilot)
        assert (charts(app).chosen, monitor(app).step) == ("teaching", 1)


async def test_the_heat_map_reads_the_histograms_once_it_is_in_sight_and_what_is_new_later(
    desk: Desk, run: RunDirectory
) -> None:
    async with watched(desk, run, NARROW) as (app, pilot):
        heat_map = app.screen.query_one(HeatMap)
        assert heat_map.missing(1, 30) == list(range(1, 31))
        await press(pilot, NEXT, NEXT)
        assert heat_map.missing(1, 30) == []
        assert "█" in shown(app)
        writer = RunWriter(run)
        writer.write_step(fixed_run.step_record(31))
        writer.close()
        await read_again(pilot, app)
        assert heat_map.missing(1, 31) == []


def test_many_histograms_are_read_in_one_go(run: RunDirectory) -> None:
    reader = RunReader(run)
    found = reader.histograms_of("advantage", range(1, 1200))
    assert len(found) == 1199
    assert found[7] == reader.histograms(7)["advantage"]
    assert found[31] is None


def test_snapshots_of_the_machine_come_once_and_only_the_last_ones(run: RunDirectory) -> None:
    reader = RunReader(run)
    last = reader.system(most=4)
    assert [data["gpus"][0]["utilisation"] for _, data in last] == [86, 87, 88, 89]
    assert reader.system(after=last[-1][0]) == []
    assert len(reader.system(after=last[-1][0] - 2)) == 2


async def test_a_new_monitor_of_each_size_keeps_a_chart_in_sight(desk: Desk, run: RunDirectory) -> None:
    async with watched(desk, run, WIDE) as (app, pilot):
        await press(pilot, *[NEXT] * 5)
        for width, height in ((60, 20), (119, 31), (200, 60)):
            await resize(pilot, width, height)
            assert "entropy" in in_sight(app)
            assert app.screen.query_one("#chart-entropy").size.height >= 5


@pytest.mark.parametrize(
    ("size", "keys"),
    [
        (NARROW, [NEXT, NEXT]),
        (NARROW, ["m"]),
        (NARROW, [PREVIOUS, PREVIOUS]),
        (WIDE, ["left", "left"]),
        (WIDE, ["w"]),
        (WIDE, [NEXT, NEXT, "m"]),
    ],
    ids=["heat-map", "alone", "seconds", "page", "all", "heat-map-alone"],
)
def test_pictures(
    snap_compare: Callable[..., bool], desk: Desk, run: RunDirectory, size: tuple[int, int], keys: list[str]
) -> None:
    assert snap_compare(desk(run), terminal_size=size, run_before=then(*keys))


@pytest.mark.parametrize(("algorithm", "margin"), [("aapo", True), ("grpo", False)])
async def test_the_charts_words_fit_the_method(desk: Desk, run: RunDirectory, algorithm: str, margin: bool) -> None:
    settings = json.loads(run.config.read_text())
    settings["algorithm"] = {"name": algorithm}
    run.config.write_text(json.dumps(settings))
    async with watched(desk, run, WIDE) as (app, pilot):
        await press(pilot, NEXT, "m")
        assert charts(app).chosen == "teaching"
        assert ("with margin" in shown(app)) == margin
        assert ("The margin gives one" in shown(app)) == margin
        assert ("━━ share" in shown(app)) != margin
        await press(pilot, PREVIOUS)
        assert ("above the reference" in shown(app)) == margin


async def test_what_a_narrow_chart_cannot_say_in_full_ends_in_an_ellipsis(desk: Desk, live: Live) -> None:
    run = fixed_run.new_run("new")
    message = "comparing the fast paths with the plain one on this device"
    fixed_run.put_status(run, "starting", 0, fixed_run.STARTED, message=message)
    live(run)
    async with watched(desk, run, WIDE) as (app, _):
        assert "  comparing the fast paths with the plain on…  " in shown(app)


async def test_a_run_that_crashed_before_its_first_step_is_not_said_to_be_at_work(desk: Desk) -> None:
    run = fixed_run.new_run("new")
    fixed_run.put_status(run, "starting", 0, fixed_run.STARTED, message="loading the model")
    async with watched(desk, run, NARROW) as (app, _):
        assert "crashed before the first step" in shown(app)
        assert "loading the model" not in shown(app)
