"""Upgrading a run's database, in place, from an older schema version to the current one."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from aapo_desk.store import records
from aapo_desk.store.directory import RunDirectory, StoreError, newer

BUSY_SECONDS = 5.0


def version_of(connection: sqlite3.Connection) -> int:
    """Return the database's schema version; 0 if the trainer has not created the tables yet."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check(run: RunDirectory, version: int) -> bool:
    """Return whether the database has an older version. Raises StoreError, naming the run, for a newer one."""
    if version > records.SCHEMA_VERSION:
        raise StoreError(newer(run, "schema", version, records.SCHEMA_VERSION))
    return 0 < version < records.SCHEMA_VERSION


def upgrade(connection: sqlite3.Connection) -> None:
    """Upgrade the tables to the current version in one transaction. The connection must be in autocommit mode."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in records.MIGRATIONS[version_of(connection) - 1 :]:
            for statement in script.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={records.SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # On a full disk SQLite has already rolled back by itself.
            connection.execute("ROLLBACK")
        raise


def upgrade_for_reading(run: RunDirectory) -> None:
    """Upgrade the database for a reader, unless a trainer is running. Raises StoreError if that is not possible now."""
    try:
        with _no_trainer(run), closing(sqlite3.connect(run.database, BUSY_SECONDS, isolation_level=None)) as connection:
            if check(run, version_of(connection)):  # Another reader may have upgraded it in the meantime.
                upgrade(connection)
    except (OSError, sqlite3.OperationalError) as error:
        raise StoreError(
            f"run {run.name} was written by an older aapo-desk and its database cannot be upgraded: {error}"
        ) from error


@contextmanager
def _no_trainer(run: RunDirectory) -> Iterator[None]:
    """Hold a shared lock on the run, since an older trainer that is running would not know the new tables."""
    run.lock.touch(mode=0o600)
    with run.lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"run {run.name} is being trained by an older aapo-desk; stop it there, then open it here to upgrade it"
            ) from None
        yield
