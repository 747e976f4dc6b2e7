"""Read-only access to a run's database while the trainer may be writing it."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from operator import itemgetter
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from aapo_desk.store.directory import RunDirectory, StoreError
from aapo_desk.store.migration import check, upgrade_for_reading, version_of
from aapo_desk.store.records import Event, Histogram, Sample, from_json
from aapo_desk.store.rows import (
    Rows,
    as_event,
    as_metrics,
    as_sample,
    evaluation_rows,
    event_rows,
    in_one_row,
    step_rows,
)
from aapo_desk.store.trend import Trend

STEPS_AT_ONCE = 500
"""Maximum number of steps read per transaction: an open reader keeps SQLite from resetting the write-ahead log."""

SCATTERED_AT_ONCE = 100  # Maximum per transaction for steps that are not consecutive.

ALWAYS = 1e300  # A time in the far future.
BY_STEP = itemgetter(1, 2)
BUSY_OR_GONE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}
"""Primary error codes that do not mean that the database is damaged."""

Reader = TypeVar("Reader", bound="RunReader")
P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Delta:
    """The rows that are new since the reader's last poll.

    ``reset``: the history was rewound, so everything received earlier must be discarded.
    ``more``: there are further steps, beyond the limit of the call.
    """

    reset: bool = False
    metrics: list[tuple[int, float, dict[str, float | None]]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    evaluations: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    more: bool = False

    @property
    def empty(self) -> bool:
        return not (self.reset or self.metrics or self.events or self.evaluations)


def whole(method: Callable[Concatenate[Reader, P], T]) -> Callable[Concatenate[Reader, P], T]:
    """Decorate a reader's method to raise StoreError if the database's content is not what a trainer writes."""

    @wraps(method)
    def checked(self: Reader, /, *arguments: P.args, **named: P.kwargs) -> T:
        try:
            return method(self, *arguments, **named)
        except (ValueError, TypeError, LookupError) as error:
            raise self._damaged(error) from error

    return checked


class RunReader:
    """A reader of a run's database, usable while the run trains. It keeps no connection open between calls.

    ``reads`` counts the transactions so far; ``longest_read`` is the duration of the longest one, in seconds.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.reads = 0
        self.longest_read = 0.0
        self._prepared = False
        self._generation: int | None = None
        self._step = 0
        self._event = 0
        self._evaluation = 0

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(connect_to_read(self.run.database)) as connection:
            started = time.perf_counter()
            try:
                if check(self.run, version_of(connection)):
                    upgrade_for_reading(self.run)
                yield connection
            except sqlite3.OperationalError as error:
                if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in BUSY_OR_GONE:
                    raise
                raise self._damaged(error) from error
            except (sqlite3.DatabaseError, ValueError) as error:
                raise self._damaged(error) from error
            finally:
                self.reads += 1
                self.longest_read = max(self.longest_read, time.perf_counter() - started)

    def _damaged(self, error: Exception) -> StoreError:
        return StoreError(f"{self.run.database} is damaged: {error}")

    @property
    def ready(self) -> bool:
        """True if the trainer has created the tables yet."""
        if not self.run.database.exists():
            return False
        if not self._prepared:
            self.run.refuse_newer()
            with self._open() as db:
                self._prepared = bool(db.execute("PRAGMA user_version").fetchone()[0])
        return self._prepared

    @property
    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """The inode, size and modification time of the database files; it changes with every write."""
        log = self.run.database.with_name(f"{self.run.database.name}-wal")
        return file_stamp(self.run.database), file_stamp(log)

    def poll(self, limit: int | None = None) -> Delta:
        """Return what was written since the last call (everything at the first call), up to ``limit`` steps.

        Many steps are read in several short transactions.
        """
        delta = self._poll(min(limit or STEPS_AT_ONCE, STEPS_AT_ONCE))
        while delta.more and (limit is None or len(delta.metrics) < limit):
            left = STEPS_AT_ONCE if limit is None else min(STEPS_AT_ONCE, limit - len(delta.metrics))
            later = self._poll(left)
            if later.reset:  # The history was rewound between two transactions.
                delta = later
                continue
            delta.metrics += later.metrics
            delta.events += later.events
            delta.evaluations += later.evaluations
            delta.more = later.more
        return delta

    @whole
    def _poll(self, limit: int) -> Delta:
        delta = Delta()
        if not self.ready:
            return delta
        with self._open() as db:
            db.execute("BEGIN")
            generation = int(db.execute("SELECT value FROM run WHERE key = 'generation'").fetchone()[0])
            if self._generation is not None and generation != self._generation:
                delta.reset = True
                self._step = self._event = self._evaluation = 0
            self._generation = generation
            rows = step_rows(db, "step > ? ORDER BY step LIMIT ?", (self._step, limit + 1))
            delta.more = len(rows) > limit
            del rows[limit:]
            # Events are ordered among the steps by time; events later than the last step read come with the next poll.
            events = event_rows(db, self._event, until=rows[-1][1] if delta.more else ALWAYS)
            evaluations = evaluation_rows(db, self._evaluation)
        delta.metrics = as_metrics(rows)
        delta.events = [as_event(row) for row in events]
        delta.evaluations = [(step, name, from_json(data)) for _, step, name, data in sorted(evaluations, key=BY_STEP)]
        self._step = rows[-1][0] if rows else self._step
        self._event = events[-1][0] if events else self._event
        self._evaluation = evaluations[-1][0] if evaluations else self._evaluation
        return delta

    @whole
    def overview(self, count: int, recent: int) -> Delta:
        """Return about ``count`` evenly spaced steps, all of the last ``recent`` ones, all events and evaluations.

        This gives a first view of a long run: its cost depends on ``count`` and not on the run's length, and its
        transactions are short. It does not affect the next ``poll``. ``more``: some steps were skipped.
        """
        span = self.span()
        if span is None:
            return Delta()
        first, last = span
        wanted = _spread(first, last, count, recent)
        rows = self._metrics_of(wanted)
        with self._open() as db:
            events = event_rows(db, 0, until=ALWAYS)
            evaluations = sorted(evaluation_rows(db, 0), key=BY_STEP)
        return Delta(
            metrics=as_metrics(rows),
            events=[as_event(row) for row in events],
            evaluations=[(step, name, from_json(data)) for _, step, name, data in evaluations],
            more=len(wanted) < last - first + 1,
        )

    @whole
    def span(self) -> tuple[int, int] | None:
        """Return the first and the last step recorded; None before the first."""
        if not self.ready:
            return None
        with self._open() as db:
            first = db.execute("SELECT step FROM metrics ORDER BY step LIMIT 1").fetchone()
            last = db.execute("SELECT step FROM metrics ORDER BY step DESC LIMIT 1").fetchone()
        return (first[0], last[0]) if first and last else None

    @whole
    def _metrics_of(self, steps: Sequence[int]) -> Rows:
        """Return the rows of these ascending steps, without the steps that do not exist."""
        found: Rows = []
        for start in range(0, len(steps), SCATTERED_AT_ONCE):
            part = steps[start : start + SCATTERED_AT_ONCE]
            marks = ",".join("?" * len(part))
            with self._open() as db:
                found += step_rows(db, f"step IN ({marks}) ORDER BY step", part)
        return found

    @whole
    def series(self, key: str) -> list[tuple[int, float]]:
        """Return (step, value) of one metric for all steps that have it, read in several short transactions."""
        found: list[tuple[int, float]] = []
        query = "SELECT step, json_extract(data, ?) FROM metrics WHERE step > ? ORDER BY step LIMIT ?"
        step, full = 0, self.ready
        while full:
            with self._open() as db:
                rows = db.execute(query, (f'$."{key}"', step, STEPS_AT_ONCE)).fetchall()
            found += [(number, value) for number, value in rows if value is not None]
            step, full = (rows[-1][0], len(rows) == STEPS_AT_ONCE) if rows else (step, False)
        return found

    @whole
    def last_metrics(self) -> tuple[int, dict[str, float | None]] | None:
        if not self.ready:
            return None
        with self._open() as db:
            row = db.execute("SELECT step, data FROM metrics ORDER BY step DESC LIMIT 1").fetchone()
        return (row[0], json.loads(row[1])) if row else None

    @whole
    def trend(self, key: str, before: Trend) -> Trend:
        """Return one metric's trend, updating ``before`` by reading only the points added since."""
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

    @whole
    def histograms(self, step: int) -> dict[str, Histogram]:
        """Return a step's histograms by name; empty if there is no such step."""
        if not self.ready:
            return {}
        with self._open() as db:
            rows = db.execute("SELECT name, low, high, counts FROM histograms WHERE step = ?", (step,)).fetchall()
        return {name: Histogram(low, high, json.loads(counts)) for name, low, high, counts in rows}

    @whole
    def histograms_of(self, name: str, steps: Sequence[int]) -> dict[int, Histogram | None]:
        """Return one histogram for each of these steps, None if it is missing; read in several short transactions."""
        found: dict[int, Histogram | None] = dict.fromkeys(steps)
        for start in range(0, len(steps) if self.ready else 0, SCATTERED_AT_ONCE):
            some = steps[start : start + SCATTERED_AT_ONCE]
            marks = ",".join("?" * len(some))
            source = f"histograms WHERE name = ? AND step IN ({marks})"
            with self._open() as db:
                rows = list(in_one_row(db, ("step", "low", "high", "counts"), source, (name, *some)))
            for step, low, high, counts in rows:
                found[int(step)] = Histogram(float(low), float(high), json.loads(counts))
        return found

    @whole
    def events(self, most: int) -> list[Event]:
        """Return the last ``most`` events, oldest first."""
        if not self.ready:
            return []
        with self._open() as db:
            rows = db.execute(
                "SELECT id, time, step, kind, data FROM events ORDER BY id DESC LIMIT ?", (most,)
            ).fetchall()
        return [as_event(row) for row in reversed(rows)]

    @whole
    def system(self, after: int = 0, most: int = 120) -> list[tuple[int, dict[str, Any]]]:
        """Return (row number, data) of the last ``most`` system snapshots after row ``after``, oldest first."""
        if not self.ready:
            return []
        with self._open() as db:
            rows = db.execute(
                "SELECT rowid, data FROM system WHERE rowid > ? ORDER BY rowid DESC LIMIT ?", (after, most)
            ).fetchall()
        return [(number, from_json(data)) for number, data in reversed(rows)]

    @whole
    def samples(self, step: int) -> list[Sample]:
        """Return a step's stored completions in pairs: policy row i, then reference row i."""
        if not self.ready:
            return []
        with self._open() as db:
            rows = db.execute(
                "SELECT step, prompt_id, row, prompt, completion, answer, reward, rewards, group_advantage, margin,"
                " advantage, tokens, truncated, is_reference FROM samples WHERE step = ? ORDER BY row, is_reference",
                (step,),
            ).fetchall()
        return [as_sample(row) for row in rows]

    @whole
    def facts(self) -> dict[str, Any]:
        """Return the facts that the trainer stored with ``RunWriter.remember``."""
        if not self.ready:
            return {}
        with self._open() as db:
            return {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM run")}

    def log_tail(self, lines: int = 200, limit: int = 65536) -> Sequence[str]:
        """Return the last lines of the trainer's log, taken from its last ``limit`` bytes."""
        try:
            with self.run.log.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - limit))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return []
        return text.splitlines()[-lines:]


def connect_to_read(database: Path) -> sqlite3.Connection:
    """Open a read-only connection. Raises sqlite3.OperationalError.

    For a database in write-ahead mode SQLite creates files next to it, which fails on a full or read-only disk. If
    there is no log, nobody is writing, and the database is opened as immutable, which needs no such files.
    """
    uri = f"{database.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=5)
    try:
        version_of(connection)
    except sqlite3.OperationalError as error:
        connection.close()
        unopened = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)
        if not unopened or file_stamp(database.with_name(f"{database.name}-wal"))[1]:
            raise
        connection = sqlite3.connect(f"{uri}&immutable=1", uri=True)
    except sqlite3.DatabaseError:  # The database is damaged; the first read reports that.
        pass
    return connection


def file_stamp(path: Path) -> tuple[int, int, int]:
    """Return a file's inode, size in bytes and modification time in ns; zeros if there is no such file."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _spread(first: int, last: int, count: int, recent: int) -> list[int]:
    """Return about ``count`` evenly spaced steps from first to last, plus all of the last ``recent`` ones."""
    stride = max(1, -(-(last - first + 1) // max(1, count)))
    return sorted({*range(first, last + 1, stride), *range(max(first, last - recent + 1), last + 1)})
