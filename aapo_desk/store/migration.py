"""A database of an older version is brought up to this one where it lies."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from aapo_desk.store import records
from aapo_desk.store.directory import RunDirectory, StoreError, newer

BUSY_SECONDS = 5.0


def version_of(connection: sqlite3.Connection) -> int:
    """The schema's version; 0 where the trainer has not made its tables yet."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check(run: RunDirectory, version: int) -> bool:
    """Whether the database is of an older version. Raises StoreError for a newer one, with its name."""
    if version > records.SCHEMA_VERSION:
        raise StoreError(newer(run, "schema", version, records.SCHEMA_VERSION))
    return 0 < version < records.SCHEMA_VERSION


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring the tables up to this version: all of it in one transaction, or nothing. Of autocommit connections."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in records.MIGRATIONS[version_of(connection) - 1 :]:
            for statement in script.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={records.SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself has rolled back where the disk is full
            connection.execute("ROLLBACK")
        raise


def upgrade_for_reading(run: RunDirectory) -> None:
    """The same by somebody who only wants to read. Raises StoreError where it cannot be done now."""
    try:
        with _no_trainer(run), closing(sqlite3.connect(run.database, BUSY_SECONDS, isolation_level=None)) as connection:
            if check(run, version_of(connection)):  # another reader may have been first
                upgrade(connection)
    except (OSError, sqlite3.OperationalError) as error:
        raise StoreError(
            f"run {run.name} was written by an older aapo-desk and cannot be brought up to this one: {error}"
        ) from error


@contextmanager
def _no_trainer(run: RunDirectory) -> Iterator[None]:
    """Hold the run's lock as readers do: an older trainer at work would not know the new tables."""
    run.lock.touch(mode=0o600)
    with run.lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"run {run.name} is at work in an older aapo-desk; stop it there, then it is brought up to this one"
            ) from None
        yield
