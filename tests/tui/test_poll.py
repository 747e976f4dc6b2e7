from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from textual.app import App
from textual.screen import Screen

from aapo_desk.bench.long_run import trainer_of, write_run
from aapo_desk.store import Histogram, RunDirectory, RunWriter, StoreError
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


def age(run: RunDirectory) -> None:
    """As if the database had been written some time ago."""
    for path in run.path.glob("run.db*"):
        os.utime(path, (time.time() - 60, time.time() - 60))


def test_the_database_is_opened_only_where_its_files_have_changed(live: Live) -> None:
    run = fixed_run.write_run(done=5)
    live(run)
    source = StoredRun(run)
    source.read()
    age(run)
    source.read()
    reads = source.reader.reads
    for _ in range(3):
        assert not source.read().changed
    assert source.reader.reads == reads
    fixed_run.put_status(run, "running", 5, fixed_run.STARTED + 99)
    assert source.read().changed
    assert source.reader.reads == reads
    writer = RunWriter(run)
    writer.write_step(fixed_run.step_record(6))
    assert [step for step, _, _ in source.read().delta.metrics] == [6]
    writer.close()


def test_what_could_not_be_read_is_read_the_next_time() -> None:
    run = fixed_run.write_run(done=5, state="finished")
    age(run)
    source = StoredRun(run)
    source.read()
    good = run.database.read_bytes()
    run.database.write_bytes(b"not a database, but long enough to have a header" * 30)
    age(run)
    for _ in range(2):
        with pytest.raises(StoreError, match="is damaged"):
            source.read()
    run.database.write_bytes(good)
    age(run)
    assert source.read().delta.empty
    assert not source.read().changed


def test_of_what_was_written_a_moment_ago_nothing_is_missed(live: Live) -> None:
    """Two steps within one tick of the file system's clock leave the same size and time where the log is reused."""
    run = fixed_run.write_run(done=5)
    live(run)
    source = StoredRun(run)
    source.read()
    reads = source.reader.reads
    source.read()
    assert source.reader.reads > reads


def test_a_long_run_comes_as_an_overview_first_and_then_whole() -> None:
    run = write_run("long", 5000)
    source = StoredRun(run)
    first = source.read()
    assert first.more
    steps = [step for step, _, _ in first.delta.metrics]
    assert len(steps) < 2000
    assert (steps[0], steps[-1]) == (1, 5000)
    later = [source.read()]
    while later[-1].more:
        later.append(source.read())
    assert [reading.history is not None for reading in later] == [False] * (len(later) - 1) + [True]
    whole = later[-1].history
    assert whole is not None
    assert list(whole.steps) == list(range(1, 5001))
    with trainer_of(run) as trainer:
        trainer.write_step()
        assert [step for step, _, _ in source.read().delta.metrics] == [5001]


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


@dataclass
class StillSource:
    """A source where nothing changes."""

    reads: int = 0

    def read(self) -> Reading:
        self.reads += 1
        return Reading("finished", changed=False)

    def detail(self, step: int) -> StepDetail:
        return StepDetail(step, {}, [])

    def histograms(self, name: str, steps: Sequence[int]) -> dict[int, Histogram | None]:
        return {}


async def test_of_a_run_that_nothing_happens_to_nothing_is_posted_unless_asked_for() -> None:
    source, app = StillSource(), App[None]()
    async with app.run_test() as pilot:
        screen = Recorder()
        await app.push_screen(screen)
        poll = RunPoll(screen, source, seconds=0.01)
        poll.start()
        while source.reads < 5:
            await pilot.pause(0.01)
        assert len(screen.readings) == 1
        await app.workers.wait_for_complete()
        poll.tick()
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert len(screen.readings) == 2


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
