"""Widgets that are gone leave memory: an evening of keys takes no more than its first minute."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widget import Widget

from aapo_desk.store import RunDirectory
from tests.tui.driving import WIDE, Desk, press, settle
from tests.tui.test_chat import Process

CHARTS = ["right_square_bracket", "left_square_bracket", "m", "m", "w", "w", "left", "G", "n", "o", "o", "o", "o"]
SCREENS_OVER_THE_MONITOR = ["v", "escape", "a", "escape", "question_mark", "escape", "ctrl+p", "escape", "t", "escape"]
HOME_AND_BACK = ["escape", "n", "escape", "u", "escape", "tab", "tab", "slash", "escape", "enter"]
SECONDS = 10.0


def widgets() -> Counter[str]:
    gc.collect()
    kinds = map(type, gc.get_objects())  # isinstance would ask each object, and some of torch's warn when asked
    return Counter(kind.__name__ for kind in kinds if issubclass(kind, Widget))


async def kept(pilot: Pilot[Any], keys: Sequence[str]) -> dict[str, int]:
    """The widgets that there are more of after the keys were pressed once more, the same being shown."""
    await settle(pilot)
    await press(pilot, *keys)
    before = widgets()
    await press(pilot, *keys)
    deadline = time.monotonic() + SECONDS  # what a closed screen has asked a thread for may have to end first
    while (more := widgets() - before) and time.monotonic() < deadline:
        await pilot.pause(0.1)
    return dict(more)


async def test_keys_of_the_charts_keep_nothing(desk: Desk, run: RunDirectory) -> None:
    """Among them what makes the line of keys anew: each time a score of widgets."""
    async with desk(run).run_test(size=WIDE) as pilot:
        assert await kept(pilot, CHARTS) == {}


async def test_a_screen_that_was_left_is_gone(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    app.open_chat = lambda _run, hear: Process(hear)
    async with app.run_test(size=WIDE) as pilot:
        assert await kept(pilot, SCREENS_OVER_THE_MONITOR) == {}


@pytest.mark.slow
async def test_home_and_a_form_with_text_areas_are_gone_when_they_were_left(desk: Desk, run: RunDirectory) -> None:
    async with desk(run).run_test(size=WIDE) as pilot:
        assert await kept(pilot, HOME_AND_BACK) == {}
