"""The trainer's hand on a run's database."""

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

# File systems on which SQLite's shared-memory file does not work (the PRAGMA does not tell).
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "9p", "fuse.sshfs", "drvfs", "afs"}


def file_system(folder: Path) -> str | None:
    """The type of the file system that a folder lies on; None where the mounts do not tell."""
    import psutil

    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else None


def _journal_mode(folder: Path) -> str:
    return "DELETE" if file_system(folder) in NETWORK_FILE_SYSTEMS else "WAL"


BUSY_MS = 30_000

MOST_LOG = 4 << 20
"""Bytes of the write-ahead log from which it is begun anew."""

LOG_WAIT_MS = 200
"""How long that waits for readers. One that stays longer is waited for again after the next transaction."""


T = TypeVar("T")


class Keep(Protocol):
    """Carries out ``work``, which writes all of something into ``folder`` (by default the run's) or nothing.

    It may try again where there was no room; ``needed``: the bytes that it takes, where they are known.
    """

    def __call__(self, work: Callable[[], T], folder: Path | None = None, needed: int | None = None) -> T: ...


def at_once(work: Callable[[], T], folder: Path | None = None, needed: int | None = None) -> T:
    """Once: what goes wrong is raised."""
    return work()


class RunWriter:
    """The trainer's hand on run.db. One writer a run; each method is one transaction.

    ``keep`` carries out each of them, and whatever else the run writes.
    """

    def __init__(self, run: RunDirectory, keep: Keep = at_once) -> None:
        self.run = run
        self.keep = keep
        self.journal_mode = _journal_mode(run.path.resolve())
        self._connection = keep(self._open)

    def _open(self) -> sqlite3.Connection:
        self.run.database.touch(mode=0o600)  # what SQLite puts beside it gets the same mode
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
        # FULL: a checkpoint must never be on disk without its steps, even after a power loss. Some ms a step.
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
        """One transaction."""

        def work() -> T:
            with _transaction(self._connection):
                return change(self._connection)

        done = self.keep(work)
        self._shorten_log()
        return done

    def _shorten_log(self) -> None:
        """Begin the log anew where it has grown long.

        SQLite itself does so only where it happens to find no reader in it, which beside busy ones may be seldom.
        """
        try:
            long = self.run.write_ahead.stat().st_size > MOST_LOG
        except OSError:
            return
        if long:
            self._connection.execute(f"PRAGMA busy_timeout={LOG_WAIT_MS}")
            with suppress(sqlite3.OperationalError):  # no room for it in the database: behind a later transaction
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")

    def write_step(self, record: StepRecord) -> None:
        self.write_steps([record])

    def write_steps(self, records: Iterable[StepRecord]) -> None:
        """Several steps in one transaction: all of them are kept, or none."""
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
        """Keep a fact of the run."""
        row = key, json.dumps(value)
        self._write(lambda db: db.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", row))

    def recall(self, key: str) -> Any:
        """A fact that was remembered; None where there is none."""
        row = self._connection.execute("SELECT value FROM run WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def evaluations(self, name: str) -> dict[int, dict[str, Any]]:
        rows = self._connection.execute("SELECT step, data FROM evaluations WHERE name = ?", (name,))
        return {step: json.loads(data) for step, data in rows}

    def metrics(self, first: int, last: int) -> list[tuple[int, dict[str, float | None]]]:
        """The metrics of the steps up to ``first`` and of the last ``last`` ones, in their order."""
        rows = self._connection.execute(
            "SELECT step, data FROM metrics WHERE step <= ? OR step > (SELECT MAX(step) FROM metrics) - ?"
            " ORDER BY step",
            (first, last),
        )
        return [(step, json.loads(data)) for step, data in rows]

    def total(self, *keys: str) -> float:
        """The sum of these metrics over all steps; missing values count nothing."""
        query = "SELECT COALESCE(SUM(json_extract(data, ?)), 0) FROM metrics"
        return sum(float(self._connection.execute(query, (f'$."{key}"',)).fetchone()[0]) for key in keys)

    def events(self, *kinds: str) -> list[tuple[str, dict[str, Any]]]:
        """The events of these kinds with their data, oldest first."""
        marks = ", ".join("?" * len(kinds))
        rows = self._connection.execute(f"SELECT kind, data FROM events WHERE kind IN ({marks}) ORDER BY id", kinds)
        return [(kind, json.loads(data)) for kind, data in rows]

    def planned(self) -> int:
        """The number of steps that the run was last said to take: by its events, else by its own configuration."""
        said = self.events("replanned", "forked")
        if said and said[-1][0] == "replanned":
            return int(said[-1][1]["steps"])
        return int((read_json(self.run.config) or {})["run"]["steps"])

    def rewind(self, step: int) -> int:
        """Remove what lies after ``step``; readers see a new generation and load again. Gives the generation.

        Events stay: they tell what happened, also in the part that is gone.
        """

        def remove(db: sqlite3.Connection) -> int:
            for table in ("metrics", "histograms", "samples", "evaluations"):
                db.execute(f"DELETE FROM {table} WHERE step > ?", (step,))
            generation = int(db.execute("SELECT value FROM run WHERE key = 'generation'").fetchone()[0]) + 1
            db.execute("UPDATE run SET value = ? WHERE key = 'generation'", (str(generation),))
            return generation

        return self._write(remove)

    def last_step(self) -> int:
        """The last step written; 0 before the first."""
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
        if connection.in_transaction:  # SQLite itself has rolled back where the disk is full
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
