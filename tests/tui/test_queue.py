"""The queue on Home: its line, and the keys that fill it, start it and stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from aapo_desk import launch
from aapo_desk.config import RunConfig
from aapo_desk.launch import Preflight
from aapo_desk.store import list_runs
from aapo_desk.studies import queue
from aapo_desk.tui.screens.dialogs import Question
from aapo_desk.tui.screens.home import HomeScreen
from aapo_desk.tui.screens.new_run import NewRunScreen
from aapo_desk.tui.widgets.queueline import QueueLine, QueueState, described
from tests.stand_in import STAND_IN, nothing_left_running, until
from tests.tui import fixed_run
from tests.tui.driving import NARROW, Desk, press, settle, shown

__all__ = ["nothing_left_running"]


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (QueueState(), ""),
        (QueueState(worked_off=True), ""),
        (QueueState(waiting=("a", "b")), "queue  Q starts it  2 waiting: a, b"),
        (QueueState(True, ("a", "running"), ("b",)), "queue  Q stops it  ▶ a is running · 1 waiting: b"),
        (QueueState(False, ("a", "paused")), "queue  Q starts it  ▶ a is paused"),
        (QueueState(failed=(("0002 b", "out of\nmemory"),)), "queue  ✗ failed: 0002 b: out of⏎memory"),
        (
            QueueState(waiting=("c",), failed=(("0001 a", "x"), ("0002 b", "y"))),
            "queue  Q starts it  1 waiting: c · ✗ 2 failed, the last: 0002 b: y",
        ),
        (QueueState(waiting=("\x1b[31m" + 40 * "a",)), "queue  Q starts it  1 waiting: ␛[31m" + 18 * "a" + "…"),
    ],
)
def test_the_line(state: QueueState, line: str) -> None:
    assert str(described(state)) == line


async def test_the_queue_stands_on_home_only_while_there_is_one(desk: Desk) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        before = shown(app)
        for name in ("sums-a", "sums-b"):
            queue.add(fixed_run.config(), preset="demo", name=name)
        app.screen.query_one(QueueLine).read()
        await settle(pilot)
        assert "queue  Q starts it  2 waiting: sums-a, sums-b" in shown(app)
        queue.remove("1")
        queue.remove("2")
        app.screen.query_one(QueueLine).read()
        await settle(pilot)
        assert shown(app) == before


@pytest.mark.parametrize("keys", [("a",), ("e", "ctrl+l")])
async def test_a_preset_is_queued_from_home_or_from_its_form(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...]
) -> None:
    def preflight(config: RunConfig, progress: Callable[[str], None], cancelled: threading.Event) -> Preflight:
        return Preflight(125, 100, 0, 0, 26, "./smol", "c0ffee", None, [], [], [], [])

    monkeypatch.setattr(launch, "preflight", preflight)
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, *keys)
        assert isinstance(app.screen, HomeScreen if keys == ("a",) else NewRunScreen)
        (entry,) = queue.entries()
        assert (entry.preset, entry.state, entry.config["model"]["revision"]) == ("demo", "waiting", "c0ffee")
        assert "Queued as 0001" in [each.message for each in app._notifications][-1]
    assert list_runs() == []


async def test_what_cannot_be_queued_says_so(desk: Desk) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        app.enqueue(fixed_run.config(overrides={"task.source": "file:missing.jsonl", "task.options": {}}), "mine")
        await settle(pilot)
        assert "✗ Not queued" in shown(app)
        await press(pilot, "x")
        assert isinstance(app.screen, HomeScreen)
    assert queue.entries() == []


async def test_q_has_the_queue_worked_off_in_the_background(desk: Desk) -> None:
    queue.add(fixed_run.config(overrides={"task.source": "file:missing.jsonl", "task.options": {}}), preset="mine")
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "Q")
        until(lambda: queue.entries()[0].state == "failed")
        app.screen.query_one(QueueLine).read()
        await settle(pilot)
        assert "✗ failed: 0001 mine: not started: task.source" in shown(app)
        until(lambda: not queue.is_worked_off())
        app.screen.query_one(QueueLine).read()
        await settle(pilot)
        await press(pilot, "Q")
        assert "The queue is empty" in [each.message for each in app._notifications][-1]


async def test_q_asks_before_it_stops_the_queue(desk: Desk) -> None:
    queue.add(fixed_run.config(overrides={"model.device": "cpu"}), preset="mine", name="stays")
    working = threading.Thread(target=lambda: queue.work_off(lambda _: None, command=STAND_IN))
    working.start()
    until(lambda: queue.entries()[0].state == "running")
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert "queue  Q stops it  ▶ stays is running" in shown(app)
        await press(pilot, "Q")
        assert isinstance(app.screen, Question)
        await press(pilot, "n")
        assert queue.is_worked_off()
        await press(pilot, "Q", "y")
        working.join(timeout=15)
        assert [entry.state for entry in queue.entries()] == ["interrupted"]


async def test_read_only_queues_and_starts_nothing(desk: Desk) -> None:
    queue.add(fixed_run.config(), preset="mine")
    app = desk(read_only=True)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "a", "Q")
        assert isinstance(app.screen, HomeScreen)
        assert not queue.is_worked_off()
    assert len(queue.entries()) == 1
