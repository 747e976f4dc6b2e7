from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from textual.app import App
from textual.screen import Screen

from aapo_desk.store import Histogram, RunWriter, StoreError
from aapo_desk.tui.poll import (
    DetailRead,
    ReadFailed,
    Reading,
    RunList,
    RunPoll,
    RunRead,
    StepDetail,
    StoredRun,
    created,
)
from tests.tui import fixed_run
from tests.tui.driving import Live


def test_the_first_reading_brings_everything_and_the_next_only_what_is_new(live: Live) -> None:
    run = fixed_run.write_run(done=5)
    live(run)
    source = StoredRun(run)
    first = source.read()
    assert first.about is not None
    assert (first.state, first.about.name) == ("running", "sums-first-try")
    assert [step for step, _, _ in first.delta.metrics] == [1, 2, 3, 4, 5]
    assert first.log is not None
    again = source.read()
    assert again.delta.empty
    assert (again.about, again.log) == (None, None)
    writer = RunWriter(run)
    writer.write_step(fixed_run.step_record(6))
    writer.close()
    assert [step for step, _, _ in source.read().delta.metrics] == [6]


def test_a_run_whose_tables_are_not_there_yet_is_starting(live: Live) -> None:
    run = fixed_run.new_run("fresh")
    live(run)
    reading = StoredRun(run).read()
    assert reading.state == "starting"
    assert reading.delta.empty


def test_a_crashed_run_brings_its_reason() -> None:
    run = fixed_run.write_run(done=5)
    with run.log.open("a", encoding="utf-8") as log:
        log.write("Traceback (most recent call last):\n  File\nValueError: the disk is full\n")
    reading = StoredRun(run).read()
    assert (reading.state, reading.reason) == ("crashed", "ValueError: the disk is full")


def test_the_list_tells_live_from_left_and_names_what_cannot_be_read(live: Live) -> None:
    live(fixed_run.write_run("alive", "20260102-100000-aaaa", done=5))
    fixed_run.write_run("done", "20260102-090000-aaaa", done=40, state="finished")
    broken = fixed_run.new_run("broken", "20260102-080000-aaaa")
    broken.config.write_text("{}", encoding="utf-8")
    fixed_run.put_status(fixed_run.new_run("failed-one", "20260102-070000-aaaa"), "failed", 0, fixed_run.STARTED)
    runs = RunList()
    rows = runs.read()
    assert [(row.name, row.state, row.step, row.steps) for row in rows[:2]] == [
        ("alive", "running", 5, 40),
        ("done", "finished", 40, 40),
    ]
    assert (rows[2].name, rows[2].model) == ("broken", "?")
    assert rows[3].reward is None
    assert runs.read()[1] is rows[1]  # what cannot change is not read again


def test_a_run_was_made_when_its_id_says() -> None:
    assert created(fixed_run.new_run("x")) == fixed_run.STARTED


@dataclass
class SlowSource:
    """A source whose details wait until they are let go."""

    let_go: threading.Event = field(default_factory=threading.Event)
    asked: list[int] = field(default_factory=list)

    def read(self) -> Reading:
        raise StoreError("written by a newer aapo-desk")

    def detail(self, step: int) -> StepDetail:
        self.asked.append(step)
        self.let_go.wait(5)
        return StepDetail(step, {}, [])

    def histograms(self, name: str, steps: Sequence[int]) -> dict[int, Histogram | None]:
        raise StoreError("written by a newer aapo-desk")


class Recorder(Screen[None]):
    """Keeps what a poll posts."""

    def __init__(self) -> None:
        super().__init__()
        self.details: list[int] = []
        self.failures: list[str] = []
        self.readings: list[Reading] = []

    def on_detail_read(self, message: DetailRead) -> None:
        self.details.append(message.detail.step)

    def on_read_failed(self, message: ReadFailed) -> None:
        self.failures.append(message.reason)

    def on_run_read(self, message: RunRead) -> None:
        self.readings.append(message.reading)


async def test_of_many_steps_asked_for_at_once_only_the_last_is_read() -> None:
    source, app = SlowSource(), App[None]()
    async with app.run_test() as pilot:
        screen = Recorder()
        await app.push_screen(screen)
        poll = RunPoll(screen, source)
        poll.want(1)
        while not source.asked:
            await pilot.pause(0.01)
        for step in range(2, 50):
            poll.want(step)
        source.let_go.set()
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert source.asked == [1, 49]
        assert screen.details == [1, 49]


async def test_a_run_that_cannot_be_read_is_reported_and_tried_again() -> None:
    app = App[None]()
    async with app.run_test() as pilot:
        screen = Recorder()
        await app.push_screen(screen)
        poll = RunPoll(screen, SlowSource())
        for _ in range(2):
            poll.tick()
            await app.workers.wait_for_complete()
            await pilot.pause()
        assert screen.failures == ["written by a newer aapo-desk"] * 2
