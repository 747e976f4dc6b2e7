"""Pictures of the screens. After a wanted change: pytest tests/tui/test_snapshots.py --snapshot-update, and look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from aapo_desk.store import RunDirectory
from tests.tui import fixed_run
from tests.tui.driving import Desk, Live, settle

Compare = Callable[..., bool]
SIZES = [(80, 24), (140, 40)]


def then(*keys: str) -> Callable[[Pilot[Any]], Any]:
    """Press keys once everything is there, and wait for what they bring."""

    async def run_before(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        for key in keys:
            await pilot.press(key)
            await settle(pilot)

    return run_before


@pytest.fixture
def runs(run: RunDirectory, live: Live) -> None:
    """A run in each state that a list may hold."""
    paused = fixed_run.write_run("sums-slower", "20260102-095000-ab11", done=12, state="paused")
    live(paused)
    fixed_run.write_run("sums-to-100", "20260102-080000-ab10", done=40, state="finished")
    fixed_run.write_run("a name longer than its column", "20260101-100000-ab09", done=17, state="stopped")
    fixed_run.write_run("out of memory", "20251224-100000-ab08", done=7)
    fixed_run.put_status(fixed_run.new_run("no adapter", "20251124-100000-ab07"), "failed", 0, fixed_run.STARTED)


@pytest.mark.parametrize("size", SIZES)
def test_home_empty(snap_compare: Compare, desk: Desk, size: tuple[int, int]) -> None:
    assert snap_compare(desk(), terminal_size=size, run_before=then())


@pytest.mark.parametrize("size", SIZES)
def test_home(snap_compare: Compare, desk: Desk, runs: None, size: tuple[int, int]) -> None:
    assert snap_compare(desk(), terminal_size=size, run_before=then())


@pytest.mark.parametrize("size", SIZES)
def test_home_marked(snap_compare: Compare, desk: Desk, runs: None, size: tuple[int, int]) -> None:
    """A run pinned and two marked, sorted by reward, the rest filtered out."""
    keys = ["down", "down", "p", "space", "down", "space", *"sssss", "slash", *"sums"]
    assert snap_compare(desk(), terminal_size=size, run_before=then(*keys))


def test_rename(snap_compare: Compare, desk: Desk, runs: None) -> None:
    keys = ["r", "ctrl+u", *"sums-slower"]
    assert snap_compare(desk(), terminal_size=(80, 24), run_before=then(*keys))


@pytest.mark.parametrize("size", SIZES)
def test_monitor(snap_compare: Compare, desk: Desk, run: RunDirectory, size: tuple[int, int]) -> None:
    assert snap_compare(desk(run), terminal_size=size, run_before=then())


def test_monitor_scrubbed(snap_compare: Compare, desk: Desk, run: RunDirectory) -> None:
    keys = ["shift+left", "left", "left", "n"]
    assert snap_compare(desk(run), terminal_size=(140, 40), run_before=then(*keys))


def test_monitor_crashed(snap_compare: Compare, desk: Desk) -> None:
    run = fixed_run.write_run(done=7)
    with run.log.open("a", encoding="utf-8") as log:
        log.write("Traceback (most recent call last):\n  File\ntorch.OutOfMemoryError: out of memory\n")
    assert snap_compare(desk(run), terminal_size=(80, 24), run_before=then())


def test_monitor_without_colour(
    snap_compare: Compare, desk: Desk, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(desk(run), terminal_size=(80, 24), run_before=then())


def test_stop_question(snap_compare: Compare, desk: Desk, run: RunDirectory) -> None:
    assert snap_compare(desk(run), terminal_size=(80, 24), run_before=then("s"))


def test_start_question(snap_compare: Compare, desk: Desk) -> None:
    assert snap_compare(desk(), terminal_size=(80, 24), run_before=then("enter"))


def test_help(snap_compare: Compare, desk: Desk, run: RunDirectory) -> None:
    assert snap_compare(desk(run), terminal_size=(80, 24), run_before=then("question_mark"))


@pytest.mark.parametrize("size", SIZES)
def test_preparing_that_ends_in_a_refusal(snap_compare: Compare, desk: Desk, size: tuple[int, int]) -> None:
    refused = fixed_run.config(overrides={"task.source": "file:missing.jsonl", "task.options": {}})
    assert snap_compare(desk(start=(refused, None)), terminal_size=size, run_before=then())
