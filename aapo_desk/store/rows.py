"""Reading rows of a run's database and converting them to records."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aapo_desk.store.records import Event, Sample, from_json

Rows = list[tuple[int, float, str]]
"""Step, time and JSON data of steps."""

Values = Sequence[str | int | float] | Mapping[str, str | int | float]
"""Query parameters: a sequence for question marks, a mapping for named ones (Python 3.14 requires that)."""


def step_rows(db: sqlite3.Connection, where: str, values: Sequence[int]) -> Rows:
    """Return step, time and data of the steps that match the SQL condition ``where``."""
    columns = ("step", "printf('%!.17g', time)", "data")
    return [
        (int(step), float(when), data) for step, when, data in in_one_row(db, columns, f"metrics WHERE {where}", values)
    ]


def in_one_row(
    db: sqlite3.Connection, columns: Sequence[str], source: str, values: Values
) -> Iterator[tuple[str, ...]]:
    """Fetch many rows joined into a single one, and return them as text. No column may be null.

    sqlite3 releases the GIL for every row it fetches, and a busy screen gives it back only after some milliseconds:
    a thousand rows would keep the transaction open for seconds. The separator is a character that JSON escapes.
    """
    named = ", ".join(f"{column} AS c{place}" for place, column in enumerate(columns))
    joined = ", ".join(f"group_concat(c{place}, char(30))" for place in range(len(columns)))
    found = db.execute(f"SELECT {joined} FROM (SELECT {named} FROM {source})", values).fetchone()
    return iter(()) if found[0] is None else zip(*(text.split(chr(30)) for text in found), strict=True)


def as_metrics(rows: Rows) -> list[tuple[int, float, dict[str, float | None]]]:
    return [(step, when, from_json(data)) for step, when, data in rows]


def event_rows(db: sqlite3.Connection, after: int, until: float) -> list[tuple[int, float, int, str, str]]:
    """Return id, time, step, kind and data of the events after id ``after``, up to the first one after ``until``."""
    source = (
        "(SELECT * FROM events WHERE id > :after AND id <"
        " COALESCE((SELECT min(id) FROM events WHERE id > :after AND time > :until), 1 << 62) ORDER BY id)"
    )
    rows = in_one_row(
        db, ("id", "printf('%!.17g', time)", "step", "kind", "data"), source, {"after": after, "until": until}
    )
    return [(int(number), float(when), int(step), kind, data) for number, when, step, kind, data in rows]


def as_event(row: tuple[int, float, int, str, str]) -> Event:
    number, when, step, kind, data = row
    return Event(number, when, step, kind, from_json(data))


def evaluation_rows(db: sqlite3.Connection, after: int) -> list[tuple[int, int, str, str]]:
    """Return row number, step, name and data of the evaluations after row ``after``.

    An evaluation that is repeated gets a new row number, so it is returned again.
    """
    source = "(SELECT rowid AS number, * FROM evaluations WHERE rowid > ? ORDER BY rowid)"
    rows = in_one_row(db, ("number", "step", "name", "data"), source, (after,))
    return [(int(number), int(step), name, data) for number, step, name, data in rows]


def as_sample(row: tuple[Any, ...]) -> Sample:
    step, prompt_id, pair, prompt, completion, answer, reward, rewards = row[:8]
    group_advantage, margin, advantage, tokens, truncated, is_reference = row[8:]
    return Sample(
        step=step,
        prompt_id=prompt_id,
        row=pair,
        prompt=prompt,
        completion=completion,
        answer=answer,
        reward=reward,
        rewards=from_json(rewards),
        group_advantage=group_advantage,
        margin=margin,
        advantage=advantage,
        tokens=tokens,
        truncated=bool(truncated),
        is_reference=bool(is_reference),
    )
