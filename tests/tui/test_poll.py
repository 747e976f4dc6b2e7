from __future__ import annotations

import threading
from dataclasses import dataclass, field

from textual.app import App
from textual.screen import Screen

from aapo_desk.store import RunWriter, StoreError
from aapo_desk.tui.poll import (
    DetailRead,
    ReadFailed,
    Reading,
    RunPoll,
    RunRead,
    StepDetail,
    StoredRun,
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
