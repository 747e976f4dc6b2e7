"""The reference cache: scored completions by key, in memory and in a file that runs share.

The file is an SQLite database with one transaction per call: a process that is killed leaves all of a call's groups or
none, and two runs that write at the same time wait for each other. Only the user can read it (mode 0600). If the file
cannot be used, the run continues with the cache in memory.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from aapo_desk.rewards import Score
from aapo_desk.rollout.scoring import Scored
from aapo_desk.store import Keep, at_once

SCHEMA_VERSION = 1

_LOCK_SECONDS = 30.0
# The last three are raised for an entry that is not in the format in which entries are written.
_FAILURES = (OSError, sqlite3.Error, ValueError, KeyError, TypeError)


Group = Sequence[Scored]
"""The G completions of one prompt."""


class Bank:
    """A cache of groups by key.

    ``warn`` is called once if the file cannot be read or written. ``keep`` runs the functions that write, and may wait
    for space on a full disk.
    """

    def __init__(self, path: Path, warn: Callable[[str], None], keep: Keep = at_once) -> None:
        self.path = path.absolute()
        self._warn = warn
        self._keep = keep
        self._memory: dict[str, Group] = {}
        self._readable = self._writable = True

    def find(self, keys: Sequence[str]) -> dict[str, Group]:
        """Return the groups of those keys that are in the cache."""
        unknown = [key for key in keys if key not in self._memory]
        if unknown and self._readable:
            try:
                self._memory |= self._read(unknown)
            except _FAILURES as error:
                self._readable = self._writable = False
                self._warn(
                    f"the reference cache {self.path} cannot be read ({error}); this run keeps it in memory from now "
                    "on; if the file is damaged, delete it"
                )
        return {key: self._memory[key] for key in keys if key in self._memory}

    def keep(self, groups: Mapping[str, Group]) -> dict[str, Group]:
        """Store groups, and return the groups now stored under their keys.

        If another run stored a group under a key first, that run's group is kept and returned.
        """
        standing = dict(groups)
        if groups and self._writable:
            try:
                standing |= self._keep(lambda: self._write(groups), self.path.parent)
            except _FAILURES as error:
                self._writable = False
                self._warn(
                    f"the reference cache {self.path} cannot be written ({error}); this run keeps it in memory from "
                    "now on"
                )
        self._memory |= standing
        return standing

    def _read(self, keys: Sequence[str]) -> dict[str, Group]:
        if not self.path.exists():
            return {}
        with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True, timeout=_LOCK_SECONDS)) as db:
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:  # its process was killed before it wrote
                return {}
            return _select(db, keys)

    def _write(self, groups: Mapping[str, Group]) -> dict[str, Group]:
        rows = [(key, time.time(), _to_json(group)) for key, group in groups.items()]
        with self._transaction() as db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS banked(key TEXT PRIMARY KEY, time REAL NOT NULL, data TEXT NOT NULL)"
                " WITHOUT ROWID"
            )
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            db.executemany("INSERT OR IGNORE INTO banked VALUES (?, ?, ?)", rows)
            return _select(db, list(groups))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        # Closing the connection without a commit rolls the transaction back.
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=_LOCK_SECONDS)) as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")


def _select(db: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Group]:
    found = (db.execute("SELECT key, data FROM banked WHERE key = ?", (key,)).fetchone() for key in keys)
    return {row[0]: _from_json(row[1]) for row in found if row}


def _to_json(group: Group) -> str:
    return json.dumps(
        [
            {
                "text": one.text,
                "tokens": one.tokens,
                "truncated": one.truncated,
                "reward": one.score.total,
                "rewards": one.score.parts,
                "error": one.score.error,
            }
            for one in group
        ],
        allow_nan=False,
    )


def _from_json(text: str) -> Group:
    return [
        Scored(item["text"], item["tokens"], item["truncated"], Score(item["reward"], item["rewards"], item["error"]))
        for item in json.loads(text)
    ]
