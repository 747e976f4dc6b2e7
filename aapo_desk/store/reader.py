"""Everybody else's view of a run's numbers."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aapo_desk.store.directory import RunDirectory, StoreError
from aapo_desk.store.records import SCHEMA_VERSION, Event, Histogram, Sample, newer_schema
from aapo_desk.store.trend import Trend


@dataclass
class Delta:
    """What is new since a reader last asked. ``reset``: forget what you had, the history was rewound."""

    reset: bool = False
    metrics: list[tuple[int, float, dict[str, float | None]]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    evaluations: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.reset or self.metrics or self.events or self.evaluations)


class RunReader:
    """Reads a run's numbers, also while it trains. Keeps no connection and no transaction open between calls."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._generation: int | None = None
        self._step = 0
        self._event = 0
        self._evaluations: dict[tuple[int, str], str] = {}

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        uri = f"{self.run.database.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=5)) as connection:
            try:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version > SCHEMA_VERSION:
                    raise StoreError(newer_schema(self.run, version))
                yield connection
            except sqlite3.OperationalError:  # busy, or gone
                raise
            except sqlite3.DatabaseError as error:
                raise StoreError(f"{self.run.database} is damaged: {error}") from error

    @property
    def ready(self) -> bool:
        """Whether the trainer has made its tables yet."""
        if not self.run.database.exists():
            return False
        with self._open() as db:
            return bool(db.execute("PRAGMA user_version").fetchone()[0])

    def poll(self) -> Delta:
        """What has come since the last call: all of it at the first."""
        delta = Delta()
        if not self.ready:
            return delta
        with self._open() as db:
            db.execute("BEGIN")
            generation = int(db.execute("SELECT value FROM run WHERE key = 'generation'").fetchone()[0])
            if self._generation is not None and generation != self._generation:
                delta.reset = True
                self._step = self._event = 0
                self._evaluations = {}
            self._generation = generation
            rows = db.execute("SELECT step, time, data FROM metrics WHERE step > ? ORDER BY step", (self._step,))
            delta.metrics = [(step, when, json.loads(data)) for step, when, data in rows]
            events = db.execute(
                "SELECT id, time, step, kind, data FROM events WHERE id > ? ORDER BY id", (self._event,)
            )
            delta.events = [Event(i, when, step, kind, json.loads(data)) for i, when, step, kind, data in events]
            for step, name, data in db.execute("SELECT step, name, data FROM evaluations ORDER BY step, name"):
                if self._evaluations.get((step, name)) != data:
                    self._evaluations[step, name] = data
                    delta.evaluations.append((step, name, json.loads(data)))
        if delta.metrics:
            self._step = delta.metrics[-1][0]
        if delta.events:
            self._event = delta.events[-1].id
        return delta

    def series(self, key: str) -> list[tuple[int, float]]:
        """One metric over the steps, where it has a value."""
        if not self.ready:
            return []
        with self._open() as db:
            rows = db.execute("SELECT step, json_extract(data, ?) FROM metrics ORDER BY step", (f'$."{key}"',))
            return [(step, value) for step, value in rows if value is not None]

    def last_metrics(self) -> tuple[int, dict[str, float | None]] | None:
        if not self.ready:
            return None
        with self._open() as db:
            row = db.execute("SELECT step, data FROM metrics ORDER BY step DESC LIMIT 1").fetchone()
        return (row[0], json.loads(row[1])) if row else None

    def trend(self, key: str, before: Trend) -> Trend:
        """One metric over the run, ``before`` brought up to date: only the points that came since are read."""
        if not self.run.database.exists():
            return Trend()
        path = f'$."{key}"'
        with self._open() as db:
            if not db.execute("PRAGMA user_version").fetchone()[0]:
                return Trend()
            db.execute("BEGIN")
            generation = int(db.execute("SELECT value FROM run WHERE key = 'generation'").fetchone()[0])
            last = db.execute(
                "SELECT step, json_extract(data, ?) FROM metrics ORDER BY step DESC LIMIT 1", (path,)
            ).fetchone()
            if last is None:
                return Trend(generation)
            trend = (before if before.generation == generation else Trend(generation)).thinned(last[0])
            steps = range(trend.next_step, last[0] + 1, trend.stride)
            new = db.execute(
                "SELECT step, json_extract(data, ?) FROM metrics"
                f" WHERE step IN ({', '.join(map(str, steps))}) ORDER BY step",
                (path,),
            ).fetchall()
        return replace(trend, points=(*trend.points, *new), last=last)

    def histograms(self, step: int) -> dict[str, Histogram]:
        """A step's histograms by name; empty where there is no such step."""
        if not self.ready:
            return {}
        with self._open() as db:
            rows = db.execute("SELECT name, low, high, counts FROM histograms WHERE step = ?", (step,)).fetchall()
        return {name: Histogram(low, high, json.loads(counts)) for name, low, high, counts in rows}

    def samples(self, step: int) -> list[Sample]:
        """A step's stored completions, pairs together: policy row i, then reference row i."""
        if not self.ready:
            return []
        with self._open() as db:
            rows = db.execute(
                "SELECT step, prompt_id, row, prompt, completion, answer, reward, rewards, group_advantage, margin,"
                " advantage, tokens, truncated, is_reference FROM samples WHERE step = ? ORDER BY row, is_reference",
                (step,),
            ).fetchall()
        return [_sample(row) for row in rows]

    def facts(self) -> dict[str, Any]:
        """What the trainer remembered of the run."""
        if not self.ready:
            return {}
        with self._open() as db:
            return {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM run")}

    def log_tail(self, lines: int = 200, limit: int = 65536) -> Sequence[str]:
        """The last lines of the trainer's log."""
        try:
            with self.run.log.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - limit))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return []
        return text.splitlines()[-lines:]


def _sample(row: tuple[Any, ...]) -> Sample:
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
        rewards=json.loads(rewards),
        group_advantage=group_advantage,
        margin=margin,
        advantage=advantage,
        tokens=tokens,
        truncated=bool(truncated),
        is_reference=bool(is_reference),
    )
