"""The run directory: what is written comes back, whole steps only, whatever happens to the writer."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from aapo_desk.config import ConfigError, RunConfig, resolve
from aapo_desk.launch.child import environment
from aapo_desk.store import (
    SCHEMA_VERSION,
    Histogram,
    RunDirectory,
    RunReader,
    RunWriter,
    Sample,
    SampleReader,
    StepRecord,
    StoreError,
    create_run,
    find_run,
    list_runs,
    read_json,
    write_atomically,
)
from aapo_desk.store import writer as writing
from aapo_desk.store.reader import STEPS_AT_ONCE
from aapo_desk.store.writer import MOST_LOG

pytestmark = pytest.mark.usefixtures("desk_home")


def config() -> RunConfig:
    return resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}})


def sample(step: int, row: int, is_reference: bool = False) -> Sample:
    return Sample(
        step=step,
        prompt_id=f"p{row}",
        row=row,
        prompt="What is 1 + 2?",
        completion="3 \x1b[31m… 三",
        answer="3",
        reward=1.0,
        rewards={"math": 1.0, "format": None},
        group_advantage=None if is_reference else 0.5,
        margin=None if is_reference else 0.25,
        advantage=None if is_reference else 0.75,
        tokens=4,
        truncated=False,
        is_reference=is_reference,
    )


def record(step: int, reward: float = 0.5) -> StepRecord:
    return StepRecord(
        step=step,
        time=1000.0 + step,
        metrics={"reward": reward, "loss": 0.1 * step},
        histograms={name: Histogram(-1.0, 1.0, [step, 0, 2]) for name in ("margin", "advantage", "reward")},
        samples=[sample(step, row, is_reference) for row in range(3) for is_reference in (False, True)],
    )


def test_a_step_comes_back_as_it_was_written() -> None:
    run = create_run(config())
    writer = RunWriter(run)
    writer.write_step(record(1))
    reader = RunReader(run)
    delta = reader.poll()
    assert delta.metrics == [(1, 1001.0, {"reward": 0.5, "loss": 0.1})]
    assert reader.histograms(1)["margin"] == Histogram(-1.0, 1.0, [1, 0, 2])
    assert [(s.row, s.is_reference) for s in reader.samples(1)] == [
        (row, ref) for row in range(3) for ref in (False, True)
    ]
    assert reader.samples(1)[0] == sample(1, 0)
    assert reader.series("loss") == [(1, 0.1)]
    assert reader.last_metrics() == (1, {"reward": 0.5, "loss": 0.1})
    assert reader.histograms(2) == {}
    assert reader.samples(2) == []
    writer.close()


def test_a_reader_gets_only_what_is_new() -> None:
    run = create_run(config())
    reader = RunReader(run)
    assert reader.poll().empty, "before the trainer has made its tables"
    writer = RunWriter(run)
    writer.write_event("started", 0)
    writer.write_step(record(1))
    first = reader.poll()
    assert [event.kind for event in first.events] == ["started"]
    assert [step for step, _, _ in first.metrics] == [1]
    assert reader.poll().empty
    writer.write_step(record(2))
    writer.write_evaluation(2, "held_out", {"problems": 8})
    second = reader.poll()
    assert [step for step, _, _ in second.metrics] == [2]
    assert second.evaluations == [(2, "held_out", {"problems": 8})]
    assert not second.events
    writer.write_evaluation(2, "held_out", {"problems": 9})
    assert reader.poll().evaluations == [(2, "held_out", {"problems": 9})], "an evaluation done again is new"
    writer.close()


def test_after_a_rewind_a_reader_starts_again_and_keeps_the_events() -> None:
    run = create_run(config())
    writer = RunWriter(run)
    reader = RunReader(run)
    for step in (1, 2, 3):
        writer.write_step(record(step))
        writer.write_evaluation(step, "held_out", {"problems": step})
    writer.write_event("started", 0)
    assert not reader.poll().reset
    assert writer.rewind(1) == 2
    writer.write_step(record(2, reward=0.9))
    delta = reader.poll()
    assert delta.reset
    assert [(step, data["reward"]) for step, _, data in delta.metrics] == [(1, 0.5), (2, 0.9)]
    assert [step for step, _, _ in delta.evaluations] == [1]
    assert [event.kind for event in delta.events] == ["started"]
    assert reader.histograms(3) == {}
    assert reader.samples(3) == []
    assert reader.poll().empty
    writer.close()


def test_a_step_cannot_be_written_twice_and_leaves_nothing_of_the_second_try() -> None:
    run = create_run(config())
    writer = RunWriter(run)
    writer.write_step(record(1))
    with pytest.raises(sqlite3.IntegrityError):
        writer.write_step(record(1, reward=0.9))
    assert len(RunReader(run).samples(1)) == 6
    assert RunReader(run).series("reward") == [(1, 0.5)]
    writer.write_step(record(2))
    writer.close()


def test_several_steps_in_one_transaction_are_all_kept_or_none() -> None:
    run = create_run(config())
    writer = RunWriter(run)
    writer.write_steps([record(1), record(2)])
    with pytest.raises(sqlite3.IntegrityError):
        writer.write_steps([record(3), record(2)])
    assert [step for step, _, _ in RunReader(run).poll().metrics] == [1, 2]
    writer.close()


def long_run(steps: int) -> RunDirectory:
    """Steps without histograms and samples, and an event after every 100th."""
    run = create_run(config())
    writer = RunWriter(run)
    writer.write_steps(StepRecord(step, 1000.0 + step, {"reward": step / 4}, {}, []) for step in range(1, steps + 1))
    for step in range(100, steps + 1, 100):
        writer.write_event("checkpoint", step)
    writer.close()
    with closing(sqlite3.connect(run.database)) as db, db:
        db.execute("UPDATE events SET time = 1000.0 + step + 0.5")
    return run


def test_many_steps_are_read_in_several_short_transactions() -> None:
    reader = RunReader(long_run(1700))
    assert [(step, data["reward"]) for step, _, data in reader.poll().metrics] == [
        (step, step / 4) for step in range(1, 1701)
    ]
    assert reader.reads >= 1700 / STEPS_AT_ONCE
    before = reader.reads
    assert len(reader.series("reward")) == 1700
    assert reader.reads - before >= 1700 / STEPS_AT_ONCE
    before = reader.reads
    assert reader.poll().empty
    assert reader.reads == before + 1


def test_part_by_part_each_event_comes_with_the_steps_before_it() -> None:
    reader = RunReader(long_run(1700))
    steps: list[int] = []
    events: list[int] = []
    more = True
    while more:
        delta = reader.poll(250)
        assert len(delta.metrics) <= 250
        steps += [step for step, _, _ in delta.metrics]
        events += [event.step for event in delta.events]
        more = delta.more
        assert all(steps[-1] - 250 <= event.step <= steps[-1] for event in delta.events)
    assert steps == list(range(1, 1701))
    assert events == list(range(100, 1701, 100))


def test_a_clock_that_is_set_back_hides_no_step_and_no_event() -> None:
    run = create_run(config())
    writer = RunWriter(run)
    for step in range(1, 9):
        writer.write_step(replace(record(step), time=time.time() + (3600 if step < 5 else -3600)))
        writer.write_event("checkpoint", step)
    writer.close()
    reader = RunReader(run)
    steps: list[int] = []
    events: list[int] = []
    for _ in range(5):
        delta = reader.poll(2)
        steps += [step for step, _, _ in delta.metrics]
        events += [event.step for event in delta.events]
    assert steps == events == list(range(1, 9))


def test_twenty_readers_at_once_see_every_step_while_it_is_written() -> None:
    run = create_run(config())
    writer = RunWriter(run)
    seen: list[list[int]] = [[] for _ in range(20)]

    def read(steps: list[int]) -> None:
        reader = SampleReader(run)
        while 60 not in steps:
            for step, _, _ in reader.poll().metrics:
                steps.append(step)
                assert len(reader.samples(step)) == 6

    readers = [threading.Thread(target=read, args=(steps,)) for steps in seen]
    for reader in readers:
        reader.start()
    for step in range(1, 61):
        writer.write_step(record(step))
    for reader in readers:
        reader.join(60)
    writer.close()
    assert seen == [list(range(1, 61))] * 20


def test_an_overview_of_a_long_run_is_short_and_takes_nothing_from_what_is_read_later() -> None:
    reader = RunReader(long_run(1700))
    delta = reader.overview(50, recent=10)
    steps = [step for step, _, _ in delta.metrics]
    assert 50 <= len(steps) <= 60
    assert steps[-10:] == list(range(1691, 1701))
    assert steps[0] == 1
    assert len(delta.events) == 17
    assert delta.more
    assert len(reader.poll().metrics) == 1700
    assert not RunReader(long_run(40)).overview(50, recent=10).more


def test_the_write_ahead_log_stays_small_beside_a_reader_that_polls_all_the_time() -> None:
    run = create_run(config())
    writer = RunWriter(run)
    done = threading.Event()
    seen: list[int] = []

    def poll() -> None:
        reader = RunReader(run)
        while not done.is_set():
            for step, _, _ in reader.poll().metrics:
                reader.samples(step)
                seen.append(step)

    thread = threading.Thread(target=poll)
    thread.start()
    sizes = []
    for step in range(1, 121):
        write_long(writer, step)
        sizes.append(run.write_ahead.stat().st_size)
    done.set()
    thread.join()
    writer.close()
    assert run.database.stat().st_size > 30e6
    assert max(sizes) < 8 * 2**20
    assert len(seen) > 1


def test_a_reader_that_stays_in_its_transaction_holds_nobody_up_and_the_log_is_emptied_behind_it() -> None:
    run = create_run(config())
    writer = RunWriter(run)
    write_long(writer, 1)
    with closing(sqlite3.connect(run.database)) as staying:
        staying.execute("BEGIN")
        staying.execute("SELECT COUNT(*) FROM metrics").fetchone()
        for step in range(2, 18):
            write_long(writer, step)
        assert run.write_ahead.stat().st_size > MOST_LOG
    write_long(writer, 18)
    assert run.write_ahead.stat().st_size == 0
    assert [step for step, _, _ in RunReader(run).poll().metrics] == list(range(1, 19))
    writer.close()


def write_long(writer: RunWriter, step: int) -> None:
    """A step with a sample of 300 kB."""
    long = replace(sample(step, 0), completion=random.Random(step).randbytes(150_000).hex())
    writer.write_step(replace(record(step), samples=[long]))


def test_numbers_that_json_has_not_become_null() -> None:
    run = create_run(config())
    writer = RunWriter(run)
    broken = StepRecord(1, 0.0, {"loss": math.nan, "grad_norm": math.inf, "reward": 0.5}, {}, [])
    writer.write_step(broken)
    writer.write_evaluation(1, "held_out", {"greedy": {"scores": [1.0, math.nan]}})
    writer.write_event("notice", 1, value=-math.inf)
    writer.write_system({"cpu": math.nan})
    writer.remember("tokens", {"a": [1, 2]})
    reader = RunReader(run)
    delta = reader.poll()
    assert delta.metrics[0][2] == {"loss": None, "grad_norm": None, "reward": 0.5}
    assert delta.evaluations[0][2] == {"greedy": {"scores": [1.0, None]}}
    assert delta.events[0].data == {"value": None}
    assert reader.series("loss") == []
    assert reader.facts()["tokens"] == {"a": [1, 2]}
    writer.close()


def test_the_metrics_answer_plain_sql_while_the_run_trains() -> None:
    run = create_run(config())
    writer = RunWriter(run)
    writer.write_step(record(1))
    with closing(sqlite3.connect(run.database)) as other:
        rows = other.execute("select step, json_extract(data, '$.reward') from metrics").fetchall()
    assert rows == [(1, 0.5)]
    writer.write_step(record(2))
    writer.close()


def test_a_reader_never_sees_half_a_step() -> None:
    run = create_run(config())
    ready = threading.Event()

    def write() -> None:
        writer = RunWriter(run)
        ready.set()
        for step in range(1, 151):
            writer.write_step(record(step))
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    ready.wait()
    reader = RunReader(run)
    seen: list[int] = []
    while len(seen) < 150:
        for step, _, _ in reader.poll().metrics:
            seen.append(step)
            assert len(reader.histograms(step)) == 3
            assert len(reader.samples(step)) == 6
    thread.join()
    assert seen == list(range(1, 151))


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from aapo_desk.store import RunDirectory, RunWriter
from tests.test_store import record
writer = RunWriter(RunDirectory(Path(sys.argv[1])))
step = writer.last_step()
while True:
    step += 1
    writer.write_step(record(step))
    writer.write_event("checkpoint", step, path=f"step {step}")
"""


def test_a_killed_writer_leaves_whole_steps_and_the_next_one_goes_on() -> None:
    run = create_run(config())
    chance = random.Random(0)
    before = 0
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(run.path)],
            env=environment() | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        deadline = time.monotonic() + 30
        while (RunReader(run).last_metrics() or (0, {}))[0] <= before + 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(chance.random() / 10)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        reader = RunReader(run)
        delta = reader.poll()
        steps = [step for step, _, _ in delta.metrics]
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) > before
        assert all(len(reader.histograms(step)) == 3 and len(reader.samples(step)) == 6 for step in steps[-3:])
        with closing(sqlite3.connect(run.database)) as check:
            assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        before = len(steps)


def test_a_written_step_is_on_the_disk_when_its_checkpoint_is() -> None:
    """What survives a loss of power can be told by nothing else than what SQLite was told."""
    with closing(RunWriter(create_run(config()))) as writer:
        assert writer._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


@pytest.mark.parametrize(("disk", "mode"), [("nfs4", "delete"), ("ext4", "wal")])
def test_a_network_disk_gets_no_write_ahead_log(monkeypatch: pytest.MonkeyPatch, disk: str, mode: str) -> None:
    monkeypatch.setattr(writing, "file_system", lambda folder: disk)
    run = create_run(config())
    with closing(RunWriter(run)) as writer:
        writer.write_step(record(1))
        assert writer.journal_mode == mode.upper()
    with closing(sqlite3.connect(run.database)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == (mode,)


def test_the_plan_is_what_was_said_last_and_a_forks_own_where_its_parent_said_it() -> None:
    with closing(RunWriter(create_run(config()))) as writer:
        own = writer.planned()
        writer.write_event("replanned", 3, steps=own + 5)
        writer.write_event("forked", 3)
        assert writer.planned() == own
        writer.write_event("replanned", 4, steps=own + 9)
        assert writer.planned() == own + 9


def test_readers_do_not_trip_over_a_writer_that_comes_and_goes() -> None:
    run = create_run(config())
    done = threading.Event()

    def write() -> None:
        for step in range(1, 41):
            writer = RunWriter(run)
            writer.write_step(record(step))
            writer.close()  # removes the write-ahead log
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    reader = RunReader(run)
    seen = 0
    while not done.is_set():
        seen += len(reader.poll().metrics)
    thread.join()
    assert seen + len(reader.poll().metrics) == 40


def test_a_database_of_a_newer_version_is_refused_by_name_and_left_alone() -> None:
    run = create_run(config(), "future")
    RunWriter(run).close()
    with closing(sqlite3.connect(run.database)) as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    before = run.database.read_bytes()
    known = f"this version supports {SCHEMA_VERSION}"
    expected = rf"future was written by a newer aapo-desk \(schema {SCHEMA_VERSION + 1}, {known}"
    with pytest.raises(StoreError, match=expected):
        RunReader(run).poll()
    with pytest.raises(StoreError, match=expected):
        RunWriter(run)
    assert run.database.read_bytes() == before


def test_a_damaged_database_is_named() -> None:
    run = create_run(config())
    run.database.write_bytes(b"not a database, but long enough to have a header" * 30)
    with pytest.raises(StoreError, match=r"run\.db is damaged"):
        RunReader(run).poll()


def test_an_empty_database_file_is_a_run_without_steps() -> None:
    run = create_run(config())
    run.database.touch()
    assert RunReader(run).poll().empty
    assert RunReader(run).last_metrics() is None
    writer = RunWriter(run)
    assert writer.last_step() == 0
    writer.close()


def test_a_run_keeps_its_configuration_and_is_private_to_the_user() -> None:
    run = create_run(config(), "first")
    assert run.read_config() == config()
    assert run.name == "first"
    assert run.read_status() == {}
    for place in (run.path, run.commands, run.checkpoints):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    for file in (run.config, run.meta):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_unreadable_configuration_is_told_in_one_line() -> None:
    run = create_run(config())
    run.config.write_text(json.dumps({"model": {"id": "a"}, "task": {"source": "arithmetic"}, "later": 1}))
    with pytest.raises(
        StoreError, match=r"config\.json is not a valid configuration for this version .*later"
    ) as error:
        run.read_config()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["", "  ", "a/b", "a\\b", ".", "..", "last", "two\nlines", "bell\a"])
def test_a_bad_name_is_refused_and_no_folder_is_made(name: str, desk_home: Path) -> None:
    with pytest.raises(ConfigError, match="--name"):
        create_run(config(), name)
    assert not list(desk_home.glob("runs/*"))


@pytest.mark.parametrize("name", ["sums", "two words", "größer-三", "v1.2", "-x"])
def test_a_good_name_finds_its_run(name: str) -> None:
    run = create_run(config(), name)
    create_run(config())
    assert find_run(name) == run


def test_a_name_or_id_in_use_is_refused() -> None:
    run = create_run(config(), "sums")
    for taken in ("sums", run.id):
        with pytest.raises(ConfigError, match="a run with this name exists"):
            create_run(config(), taken)
    assert list_runs() == [run]


def test_a_run_is_found_by_id_unique_beginning_name_or_last() -> None:
    with pytest.raises(ConfigError, match="there are no runs yet"):
        find_run("last")
    runs = [create_run(config()) for _ in range(3)]
    assert list_runs() == runs[::-1], "the newest first, also within a second"
    assert find_run("last") == runs[2]
    assert find_run(runs[0].id) == runs[0]
    assert find_run(runs[1].id[:-1]) in runs
    with pytest.raises(ConfigError, match="matches several runs"):
        find_run(runs[0].id[:4])
    for reference in ("nobody", ""):
        with pytest.raises(ConfigError, match="there is no such run"):
            find_run(reference)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    write_atomically(file, '{"step": 1}')
    stop = threading.Event()

    def write() -> None:
        number = 2
        while not stop.is_set():
            write_atomically(file, json.dumps({"step": number, "filler": "x" * 5000}), durable=False)
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    answers = [read_json(file) for _ in range(2000)]
    stop.set()
    thread.join()
    assert all(answers)
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_what_is_no_json_object_reads_as_nothing(tmp_path: Path) -> None:
    assert read_json(tmp_path / "missing.json") is None
    (tmp_path / "list.json").write_text("[1]")
    assert read_json(tmp_path / "list.json") is None
    (tmp_path / "torn.json").write_text('{"step": 1')
    assert read_json(tmp_path / "torn.json") is None
    assert RunDirectory(tmp_path).read_meta() == {"name": tmp_path.name}


def test_the_log_tail_is_its_last_lines() -> None:
    run = create_run(config())
    assert list(RunReader(run).log_tail()) == []
    run.log.write_bytes(b"".join(b"line %d \xff\n" % number for number in range(20_000)))
    tail = RunReader(run).log_tail(lines=3)
    assert [line.split()[1] for line in tail] == ["19997", "19998", "19999"]
