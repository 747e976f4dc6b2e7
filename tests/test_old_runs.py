"""Run directories of other versions: older ones open and continue, newer ones are refused by name."""

from __future__ import annotations

import fcntl
import json
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from aapo_desk.checkpoint import newest_whole
from aapo_desk.cli.app import run as command
from aapo_desk.config import RunConfig, resolve
from aapo_desk.store import (
    SCHEMA_VERSION,
    RunDirectory,
    RunReader,
    RunWriter,
    SampleReader,
    StepRecord,
    StoreError,
    create_run,
    find_run,
    records,
)
from aapo_desk.training.control import Control
from aapo_desk.training.setup import prepared
from aapo_desk.training.trainer import Trainer

OLD = Path(__file__).parent / "data" / "run_of_2026-11-22.tar.xz"
"""A run directory that the first version of this package has left (commit be77b32, schema 1, no meta format): the tiny
model of these tests, killed after step 3 of 4, its checkpoint of step 2. The model's path in it is MODEL."""

Output = pytest.CaptureFixture[str]


@pytest.fixture
def old(desk_home: Path, tiny_model: Path) -> RunDirectory:
    with tarfile.open(OLD) as archive:
        archive.extractall(desk_home / "runs", filter="data")
    run = find_run("last")
    run.config.write_text(run.config.read_text().replace("MODEL", str(tiny_model)))
    return run


def test_a_run_of_the_first_version_is_shown(old: RunDirectory, capsys: Output) -> None:
    assert command(["runs", "show", "old", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["state"], shown["step"], shown["steps"], shown["problem"][:11]) == ("crashed", 3, 4, "the trainer")
    assert list(shown["evaluations"]) == ["0", "2"]
    assert shown["metrics"]["grad_norm"] > 0
    assert len(SampleReader(old).samples(3)) == 8
    assert command(["runs", "export", "old", "--bundle", "--to", str(old.path), "--json"]) == 0
    (missing,) = json.loads(capsys.readouterr().out)["problems"]
    assert missing.startswith("train.log is missing"), "it was trained by hand, without a log"


def test_a_run_of_the_first_version_goes_on_to_its_end(old: RunDirectory) -> None:
    config = old.read_config()
    store = RunWriter(old)
    with Control(old, config.run.steps) as control, prepared(config, store, control) as ready:
        Trainer(old, config, ready, store, control).train()
    store.close()
    delta = RunReader(old).poll()
    assert [step for step, _, _ in delta.metrics] == [1, 2, 3, 4]
    assert [event.data["from_step"] for event in delta.events if event.kind == "resumed"] == [2]
    assert delta.events[-1].kind == "finished"
    found = newest_whole(old.checkpoints)
    assert found
    assert found[0].step == 4


def test_what_an_older_version_measured_is_compared_on_one_rule_when_the_run_goes_on(old: RunDirectory) -> None:
    """Its base had one of two answers unscorable, and its step 2 too: accuracies of 1.0 and 1.0 when measured."""
    with closing(sqlite3.connect(old.database)) as db, db:
        for step, scores in ((0, [1.0, None]), (2, [None, 1.0])):
            (data,) = db.execute("SELECT data FROM evaluations WHERE step = ?", (step,)).fetchone()
            row = json.loads(data)
            for side in ("greedy", "sampled"):
                row[side] |= {"accuracy": 1.0, "low": 0.2, "high": 1.0, "unscorable": 1, "scores": scores}
            db.execute("UPDATE evaluations SET data = ? WHERE step = ?", (json.dumps(row), step))
    config = old.read_config()
    store = RunWriter(old)
    with Control(old, config.run.steps) as control, prepared(config, store, control) as ready:
        Trainer(old, config, ready, store, control).train()
    rows = store.evaluations("held_out")
    store.close()
    assert rows[0]["greedy"]["accuracy"] == 1.0, "the record stays"
    last = rows[4]
    assert last["greedy"]["unscorable_as"] == "wrong"
    assert last["difference"]["mean"] == pytest.approx(last["greedy"]["accuracy"] - 0.5)
    finished = RunReader(old).poll().events[-1]
    expected = max([(0.5, 0.5, 2), (last["greedy"]["accuracy"], last["sampled"]["accuracy"], 4)])[2]
    assert finished.data["best"] == expected, "1.0 by the older rule does not win"


def config() -> RunConfig:
    return resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}})


@pytest.fixture
def run(desk_home: Path) -> RunDirectory:
    """A run of this version with a step."""
    run = create_run(config(), "mine")
    writer = RunWriter(run)
    writer.write_step(StepRecord(1, 1.0, {"reward": 0.5}, {}, []))
    writer.close()
    return run


NEW_TABLES = "CREATE TABLE added(x TEXT); ALTER TABLE metrics ADD COLUMN note TEXT"


def next_version(monkeypatch: pytest.MonkeyPatch, statements: str = NEW_TABLES) -> int:
    """As if the schema had been changed once more."""
    monkeypatch.setattr(records, "MIGRATIONS", (*records.MIGRATIONS, statements))
    monkeypatch.setattr(records, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    return SCHEMA_VERSION + 1


def tables(run: RunDirectory) -> tuple[int, bool]:
    """The schema's version, and whether the migration's table is there."""
    with closing(sqlite3.connect(run.database)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        return version, bool(db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'added'").fetchone())


@pytest.mark.parametrize("opened", [lambda run: RunReader(run).poll(), lambda run: RunWriter(run).close()])
def test_a_database_of_an_older_version_is_brought_up_where_it_lies(
    opened: Callable[[RunDirectory], object], run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = next_version(monkeypatch)
    opened(run)
    assert tables(run) == (version, True)
    assert RunReader(run).last_metrics() == (1, {"reward": 0.5})


def test_a_migration_that_fails_changes_nothing(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    next_version(monkeypatch, f"{NEW_TABLES}; SELECT no_such_column FROM metrics")
    with pytest.raises(
        StoreError, match="run mine was written by an older aapo-desk and its database cannot be upgraded"
    ):
        RunReader(run).poll()
    assert tables(run) == (SCHEMA_VERSION, False)


def test_the_database_of_an_older_trainer_at_work_is_left_alone(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    next_version(monkeypatch)
    run.lock.touch()
    with run.lock.open("rb") as trainer:
        fcntl.flock(trainer, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="run mine is being trained by an older aapo-desk; stop it there"):
            RunReader(run).poll()
    assert tables(run) == (SCHEMA_VERSION, False)


def _newer_schema(run: RunDirectory) -> None:
    with closing(sqlite3.connect(run.database)) as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")


def _newer_format(run: RunDirectory) -> None:
    run.meta.write_text(json.dumps(run.read_meta() | {"format": 2, "version": "9.1"}))


@pytest.mark.parametrize(
    ("make_newer", "expected"),
    [
        (
            _newer_schema,
            f"run mine was written by a newer aapo-desk (schema {SCHEMA_VERSION + 1}, this version supports",
        ),
        (_newer_format, "run mine was written by a newer aapo-desk (run format 2, this version supports 1); upgrade"),
    ],
)
def test_a_run_of_a_newer_version_is_refused_by_name(
    make_newer: Callable[[RunDirectory], None], expected: str, run: RunDirectory, capsys: Output
) -> None:
    make_newer(run)
    assert command(["runs", "show", "mine"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, len(captured.err.splitlines())) == ("", 1)
    assert expected in captured.err
    assert command(["runs", "list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert expected in listed["problem"], "it does not hide the others"


def test_a_configuration_of_another_version_names_both(run: RunDirectory) -> None:
    values = json.loads(run.config.read_text())
    values["rollout"]["speculation"] = 3
    run.config.write_text(json.dumps(values))
    run.meta.write_text(json.dumps(run.read_meta() | {"version": "9.1"}))
    with pytest.raises(StoreError, match=r"rollout\.speculation: .*; aapo-desk 9\.1 wrote it, this is "):
        run.read_config()


def test_a_checkpoint_of_a_newer_version_is_refused_and_not_passed_over(run: RunDirectory) -> None:
    for step, form in ((1, 1), (2, 2)):
        folder = run.checkpoints / f"step_{step:06d}"
        folder.mkdir()
        (folder / "state.json").write_text(json.dumps({"format": form, "step": step, "checksums": {}}))
    with pytest.raises(StoreError, match=r"run mine was written by a newer aapo-desk \(step_000002: format 2, this"):
        newest_whole(run.checkpoints)
