"""Copying a parent run's history, up to a checkpoint, into the database of a fork."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from aapo_desk.store.directory import RunDirectory, StoreError
from aapo_desk.store.reader import RunReader
from aapo_desk.store.records import to_json
from aapo_desk.store.writer import RunWriter

STEPS_AT_ONCE = 200
"""Maximum number of steps copied per transaction: the parent may be training, so its readers must finish quickly."""

SAMPLE = (
    "step, prompt_id, row, prompt, completion, answer, reward, rewards, group_advantage, margin, advantage, tokens,"
    " truncated, is_reference"
)
BY_STEP = (
    "INSERT INTO metrics SELECT * FROM other.metrics WHERE step BETWEEN ? AND ? ORDER BY step",
    "INSERT INTO histograms SELECT * FROM other.histograms WHERE step BETWEEN ? AND ?",
    f"INSERT INTO samples({SAMPLE}) SELECT {SAMPLE} FROM other.samples WHERE step BETWEEN ? AND ? ORDER BY id",
)


def copy_history(
    parent: RunDirectory, run: RunDirectory, step: int, event: Mapping[str, Any], choices: bool, evaluations: bool
) -> None:
    """Copy the parent's history up to the checkpoint of ``step`` into a new run, and add the event ``forked``.

    The end-of-sequence tokens are always copied.

    Args:
        parent: The run to copy from.
        run: The new run.
        step: The step of the checkpoint.
        event: The data of the event ``forked``, stored as the fact ``parent`` as well.
        choices: Whether to copy the execution plan chosen for the device.
        evaluations: Whether to copy the evaluations on held-out problems.

    Raises StoreError if the parent's database cannot be read.
    """
    if not RunReader(parent).ready:  # This also raises for a run that a newer version wrote.
        raise StoreError(f"run {parent.name} has no recorded steps to copy")
    RunWriter(run).close()  # Creates the tables.
    try:
        with closing(sqlite3.connect(run.database.resolve().as_uri(), uri=True, isolation_level=None)) as db:
            db.execute("ATTACH ? AS other", (f"{parent.database.resolve().as_uri()}?mode=ro",))
            _copy_steps(db, step)
            rate = not any(path.startswith("optimizer.") for path in event["changed"])
            _copy_rest(db, step, choices, evaluations, rate)
            db.execute("INSERT INTO run VALUES ('parent', ?)", (json.dumps(event),))
            db.execute("INSERT INTO events VALUES (NULL, ?, ?, 'forked', ?)", (time.time(), step, to_json(event)))
    except sqlite3.Error as error:
        raise StoreError(f"the history of run {parent.name} cannot be copied: {error}") from error


def _copy_steps(db: sqlite3.Connection, last: int) -> None:
    for first in range(1, last + 1, STEPS_AT_ONCE):
        db.execute("BEGIN")
        for statement in BY_STEP:
            db.execute(statement, (first, min(last, first + STEPS_AT_ONCE - 1)))
        db.execute("COMMIT")


def _copy_rest(db: sqlite3.Connection, step: int, choices: bool, evaluations: bool, rate: bool) -> None:
    """Copy events, system snapshots, evaluations and facts up to the checkpoint, in one transaction."""
    db.execute("BEGIN")
    saved = db.execute(
        "SELECT id, time FROM other.events WHERE kind = 'checkpoint' AND step = ? ORDER BY id DESC LIMIT 1", (step,)
    ).fetchone()
    if saved is None:  # The trainer died after writing the checkpoint and before recording its event.
        until = db.execute("SELECT time FROM other.metrics WHERE step = ?", (step,)).fetchone()
        saved = (1 << 62, until[0] if until else 0)
    # After a rewind, events of discarded steps remain in the parent; those of later steps are not copied.
    db.execute(
        "INSERT INTO events SELECT * FROM other.events WHERE id <= ? AND step <= ? ORDER BY id", (saved[0], step)
    )
    db.execute("INSERT INTO system SELECT * FROM other.system WHERE time <= ? ORDER BY rowid", (saved[1],))
    if evaluations:
        db.execute("INSERT INTO evaluations SELECT * FROM other.evaluations WHERE step <= ? ORDER BY rowid", (step,))
    # The copied steps were sampled with these end-of-sequence tokens, so the steps to come must use them too.
    db.execute("INSERT INTO run SELECT * FROM other.run WHERE key = 'eos_ids'")
    if choices:
        db.execute("INSERT INTO run SELECT * FROM other.run WHERE key = 'choices'")
    if rate:  # The learning rate as lowered by a rollback (training.rollback), if that was before this step.
        db.execute(
            "INSERT INTO run SELECT key, json_set(value, '$.unfinished', json('false')) FROM other.run"
            " WHERE key = 'recovery' AND json_extract(value, '$.to') <= ?",
            (step,),
        )
    db.execute("COMMIT")
