from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from textual.app import App, ComposeResult

from aapo_desk.store import Histogram
from aapo_desk.tui.widgets.heatmap import DENSITY, MOST_STEPS, HeatMap, merged, steps_to_read
from aapo_desk.tui.widgets.plot import Plot


class MapApp(App[None]):
    """A heat map of 8 rows and nothing else."""

    CSS = "Plot { width: 46; height: 10; }" + "".join(f".{name} {{ color: red; }}" for name in Plot.COMPONENT_CLASSES)

    def compose(self) -> ComposeResult:
        yield HeatMap("advantage", "waiting", id="map")

    def lines(self) -> list[str]:
        heat_map = self.query_one(HeatMap)
        return [heat_map.render_line(y).text for y in range(heat_map.size.height)]


@asynccontextmanager
async def drawn() -> AsyncIterator[tuple[MapApp, HeatMap]]:
    app = MapApp()
    async with app.run_test():
        yield app, app.query_one(HeatMap)


def concentrated(bin_: int, bins: int = 24) -> Histogram:
    return Histogram(-2.0, 2.0, [8 if place == bin_ else 0 for place in range(bins)])


@pytest.mark.parametrize(("last", "stride"), [(1, 1), (MOST_STEPS, 1), (MOST_STEPS + 1, 2), (100_000, 256)])
def test_of_a_long_run_every_so_manieth_step_is_read(last: int, stride: int) -> None:
    steps = steps_to_read(1, last)
    assert steps.step == stride
    assert len(steps) <= MOST_STEPS
    assert last - steps[-1] < stride


def test_what_was_read_stays_of_use_when_the_run_becomes_longer() -> None:
    before, after = set(steps_to_read(1, 1000)), steps_to_read(1, 2000)
    assert sum(step in before for step in after) == 250


def test_rows_of_a_map_hold_equally_many_bins() -> None:
    assert [merged(24, height) for height in (1, 5, 6, 11, 12, 30)] == [24, 6, 4, 3, 2, 1]
    assert merged(7, 3) == 7


async def test_where_the_values_are_is_told_by_dense_characters_in_the_right_place() -> None:
    async with drawn() as (app, heat_map):
        heat_map.span(1, 40)
        assert heat_map.missing(1, 40) == list(range(1, 41))
        heat_map.add({step: concentrated(0 if step <= 20 else 23) for step in range(1, 41)})
        assert heat_map.missing(1, 41) == [41]
        title, *rows, _ = app.lines()
        assert "up to 100 %" in title
        top, bottom = rows[0], rows[-1]
        assert top.startswith("   2 ┤")
        assert bottom.startswith("  -2 ┤")
        assert top[6:25].strip() == ""
        assert set(top[28:46]) == {DENSITY[-1]}
        assert set(bottom[6:25]) == {DENSITY[-1]}
        assert sum("0 ┤" in row for row in rows) == 1


async def test_a_step_that_spreads_is_fainter_than_one_that_does_not() -> None:
    async with drawn() as (app, heat_map):
        heat_map.span(1, 2)
        heat_map.add({1: concentrated(23), 2: Histogram(-2.0, 2.0, [1] * 24)})
        top = app.lines()[1]
        assert DENSITY.index(top[6]) == len(DENSITY) - 1
        assert 0 < DENSITY.index(top[6 + 40 // 9 + 1].strip() or "·") < len(DENSITY) - 1


async def test_steps_with_other_bins_than_the_last_are_left_out() -> None:
    async with drawn() as (app, heat_map):
        heat_map.span(1, 2)
        heat_map.add({1: concentrated(23), 2: Histogram(0.0, 9.0, [8] + [0] * 23)})  # as after a fork
        rows = [line.partition("┤")[2] or line.partition("│")[2] for line in app.lines()[1:9]]
        assert all(not row[:20].strip() for row in rows[:-1])
        assert rows[-1].strip()


async def test_steps_without_a_histogram_are_not_asked_for_again_and_leave_the_map_waiting() -> None:
    async with drawn() as (app, heat_map):
        heat_map.span(1, 3)
        heat_map.add({1: None, 2: None, 3: Histogram(0.0, 1.0, [0, 0])})
        assert heat_map.missing(1, 3) == []
        assert "waiting" in "".join(app.lines())


async def test_what_was_rewound_is_read_again() -> None:
    async with drawn() as (_, heat_map):
        heat_map.span(1, 9)
        heat_map.add({step: concentrated(3) for step in range(1, 10)})
        heat_map.clear()
        heat_map.span(1, 4)
        heat_map.add({8: concentrated(3)})  # asked for before it was rewound
        assert heat_map.missing(1, 8) == list(range(1, 9))
