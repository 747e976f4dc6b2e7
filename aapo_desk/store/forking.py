"""A run that begins as another one up to one of its checkpoints: the history that it takes along."""

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
"""The most steps that one transaction copies: the other run may be training, and its readers must be quick."""

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
    """Give a new run's database what another holds up to the checkpoint of ``step``, and the event ``forked``.

    ``event``: that event's data, kept as the fact ``parent`` as well. ``choices``: take along what was chosen for the
    device; ``evaluations``: what was measured on held-out problems. The tokens that end a completion stay the parent's.
    Raises StoreError where the other cannot be read.
    """
    if not RunReader(parent).ready:  # also refuses one of a newer version, by name
        raise StoreError(f"run {parent.name} has no numbers that could be taken along")
    RunWriter(run).close()  # makes the tables
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
    """Events, snapshots of the machine, evaluations and facts up to the checkpoint, in one transaction."""
    db.execute("BEGIN")
    saved = db.execute(
        "SELECT id, time FROM other.events WHERE kind = 'checkpoint' AND step = ? ORDER BY id DESC LIMIT 1", (step,)
    ).fetchone()
    if saved is None:  # the trainer died between the checkpoint and its event
        until = db.execute("SELECT time FROM other.metrics WHERE step = ?", (step,)).fetchone()
        saved = (1 << 62, until[0] if until else 0)
    # What happened in a part that was trained again since is left out, as far as its step lies behind.
    db.execute(
        "INSERT INTO events SELECT * FROM other.events WHERE id <= ? AND step <= ? ORDER BY id", (saved[0], step)
    )
    db.execute("INSERT INTO system SELECT * FROM other.system WHERE time <= ? ORDER BY rowid", (saved[1],))
    if evaluations:
        db.execute("INSERT INTO evaluations SELECT * FROM other.evaluations WHERE step <= ? ORDER BY rowid", (step,))
    # The steps taken along were sampled with these ends, and the steps to come must be too.
    db.execute("INSERT INTO run SELECT * FROM other.run WHERE key = 'eos_ids'")
    if choices:
        db.execute("INSERT INTO run SELECT * FROM other.run WHERE key = 'choices'")
    if rate:  # what the rate was lowered to when it had gone back (training.rollback), if that was before this step
        db.execute(
            "INSERT INTO run SELECT key, json_set(value, '$.unfinished', json('false')) FROM other.run"
            " WHERE key = 'recovery' AND json_extract(value, '$.to') <= ?",
            (step,),
        )
    db.execute("COMMIT")
