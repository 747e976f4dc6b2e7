"""Writing a run's database, which only the trainer does."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from aapo_desk.store.directory import RunDirectory, read_json
from aapo_desk.store.migration import check, upgrade, version_of
from aapo_desk.store.records import SCHEMA, SCHEMA_VERSION, StepRecord, finite, to_json

# File systems on which SQLite's shared-memory file does not work, although PRAGMA journal_mode=WAL succeeds there.
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "9p", "fuse.sshfs", "drvfs", "afs"}


def file_system(folder: Path) -> str | None:
    """Return the type of the file system that contains a folder; None if the list of mounts does not show it."""
    import psutil

    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else None


def _journal_mode(folder: Path) -> str:
    return "DELETE" if file_system(folder) in NETWORK_FILE_SYSTEMS else "WAL"


BUSY_MS = 30_000

MOST_LOG = 4 << 20
"""Size of the write-ahead log, in bytes, above which it is truncated."""

LOG_WAIT_MS = 200
"""How long a truncation waits for readers. If one stays longer, the next transaction tries again."""


T = TypeVar("T")


class Keep(Protocol):
    """A function that runs ``work``, which must write into ``folder`` completely or not at all, and returns its result.

    It may run ``work`` again after a full disk. ``folder`` is the run's folder by default; ``needed`` is the number of
    bytes to be written, if known.
    """

    def __call__(self, work: Callable[[], T], folder: Path | None = None, needed: int | None = None) -> T: ...


def at_once(work: Callable[[], T], folder: Path | None = None, needed: int | None = None) -> T:
    """Run ``work`` once and let its exceptions propagate; the default ``Keep``."""
    return work()


class RunWriter:
    """The trainer's write access to run.db. A run has one writer, and each method is one transaction.

    ``keep`` runs each transaction, and everything else that the run writes.
    """

    def __init__(self, run: RunDirectory, keep: Keep = at_once) -> None:
        self.run = run
        self.keep = keep
        self.journal_mode = _journal_mode(run.path.resolve())
        self._connection = keep(self._open)

    def _open(self) -> sqlite3.Connection:
        self.run.database.touch(mode=0o600)  # SQLite gives its auxiliary files the same mode.
        connection = sqlite3.connect(self.run.database, isolation_level=None, timeout=BUSY_MS / 1000)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        old = check(self.run, version_of(connection))
        connection.execute(f"PRAGMA journal_mode={self.journal_mode}")
        # FULL: a checkpoint must never be on disk without its steps, even after a power loss. It costs a few ms a step.
        connection.execute("PRAGMA synchronous=FULL")
        if old:
            upgrade(connection)
        if version_of(connection) == 0:
            with _transaction(connection):
                for statement in SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute("INSERT INTO run VALUES ('generation', '1')")
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``change`` in one transaction and return its result."""

        def work() -> T:
            with _transaction(self._connection):
                return change(self._connection)

        done = self.keep(work)
        self._shorten_log()
        return done

    def _shorten_log(self) -> None:
        """Truncate the write-ahead log if it has grown too long.

        SQLite does so by itself only when no reader is active, which may be seldom while several of them poll.
        """
        try:
            long = self.run.write_ahead.stat().st_size > MOST_LOG
        except OSError:
            return
        if long:
            self._connection.execute(f"PRAGMA busy_timeout={LOG_WAIT_MS}")
            with suppress(sqlite3.OperationalError):  # The disk is full; try again after a later transaction.
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")

    def write_step(self, record: StepRecord) -> None:
        self.write_steps([record])

    def write_steps(self, records: Iterable[StepRecord]) -> None:
        """Write several steps in one transaction: either all of them or none."""
        records = list(records)

        def insert(db: sqlite3.Connection) -> None:
            for record in records:
                _insert_step(db, record)

        self._write(insert)

    def write_event(self, kind: str, step: int, /, **data: Any) -> None:
        row = time.time(), step, kind, to_json(data)
        self._write(lambda db: db.execute("INSERT INTO events VALUES (NULL, ?, ?, ?, ?)", row))

    def write_system(self, data: Mapping[str, Any]) -> None:
        row = time.time(), to_json(data)
        self._write(lambda db: db.execute("INSERT INTO system VALUES (?, ?)", row))

    def write_evaluation(self, step: int, name: str, data: Mapping[str, Any]) -> None:
        row = step, name, to_json(data)
        self._write(lambda db: db.execute("INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?)", row))

    def remember(self, key: str, value: Any) -> None:
        """Store a fact about the run under a key, replacing an earlier one."""
        row = key, json.dumps(value)
        self._write(lambda db: db.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", row))

    def recall(self, key: str) -> Any:
        """Return the fact stored under a key; None if there is none."""
        row = self._connection.execute("SELECT value FROM run WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def evaluations(self, name: str) -> dict[int, dict[str, Any]]:
        rows = self._connection.execute("SELECT step, data FROM evaluations WHERE name = ?", (name,))
        return {step: json.loads(data) for step, data in rows}

    def metrics(self, first: int, last: int) -> list[tuple[int, dict[str, float | None]]]:
        """Return (step, metrics) of the steps up to ``first`` and of the last ``last`` steps, in ascending order."""
        rows = self._connection.execute(
            "SELECT step, data FROM metrics WHERE step <= ? OR step > (SELECT MAX(step) FROM metrics) - ?"
            " ORDER BY step",
            (first, last),
        )
        return [(step, json.loads(data)) for step, data in rows]

    def total(self, *keys: str) -> float:
        """Return the sum of these metrics over all steps; missing values count as 0."""
        query = "SELECT COALESCE(SUM(json_extract(data, ?)), 0) FROM metrics"
        return sum(float(self._connection.execute(query, (f'$."{key}"',)).fetchone()[0]) for key in keys)

    def events(self, *kinds: str) -> list[tuple[str, dict[str, Any]]]:
        """Return (kind, data) of the events of these kinds, oldest first."""
        marks = ", ".join("?" * len(kinds))
        rows = self._connection.execute(f"SELECT kind, data FROM events WHERE kind IN ({marks}) ORDER BY id", kinds)
        return [(kind, json.loads(data)) for kind, data in rows]

    def planned(self) -> int:
        """Return the run's last planned number of steps, from its events or else from its own configuration."""
        plans = self.events("replanned", "forked")
        if plans and plans[-1][0] == "replanned":
            return int(plans[-1][1]["steps"])
        return int((read_json(self.run.config) or {})["run"]["steps"])

    def rewind(self, step: int) -> int:
        """Remove everything recorded after ``step`` and return the new generation, which makes readers reload.

        Events stay, since they report what happened, including in the removed part.
        """

        def remove(db: sqlite3.Connection) -> int:
            for table in ("metrics", "histograms", "samples", "evaluations"):
                db.execute(f"DELETE FROM {table} WHERE step > ?", (step,))
            generation = int(db.execute("SELECT value FROM run WHERE key = 'generation'").fetchone()[0]) + 1
            db.execute("UPDATE run SET value = ? WHERE key = 'generation'", (str(generation),))
            return generation

        return self._write(remove)

    def last_step(self) -> int:
        """Return the last step written; 0 before the first."""
        return int(self._connection.execute("SELECT COALESCE(MAX(step), 0) FROM metrics").fetchone()[0])

    def close(self) -> None:
        self._connection.close()


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # On a full disk SQLite has already rolled back by itself.
            connection.execute("ROLLBACK")
        raise


def _insert_step(db: sqlite3.Connection, record: StepRecord) -> None:
    db.execute("INSERT INTO metrics VALUES (?, ?, ?)", (record.step, record.time, to_json(record.metrics)))
    db.executemany(
        "INSERT INTO histograms VALUES (?, ?, ?, ?, ?)",
        [(record.step, name, item.low, item.high, json.dumps(item.counts)) for name, item in record.histograms.items()],
    )
    db.executemany(
        "INSERT INTO samples VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                sample.step,
                sample.prompt_id,
                sample.row,
                sample.prompt,
                sample.completion,
                sample.answer,
                finite(sample.reward),
                to_json(sample.rewards),
                finite(sample.group_advantage),
                finite(sample.margin),
                finite(sample.advantage),
                sample.tokens,
                sample.truncated,
                sample.is_reference,
            )
            for sample in record.samples
        ],
    )
