"""Reading a few metrics over all steps of a run without loading the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from aapo_desk.store.reader import RunReader, whole
from aapo_desk.store.records import from_json

PIECE = 500  # Steps per transaction. A busy screen can delay the fetch of every row, so a transaction must have few.


class CurveReader(RunReader):
    """A stateless reader of single metrics (columns), whereas ``poll`` returns all metrics of a step (rows)."""

    @whole
    def generation(self) -> int | None:
        """Return the generation of the history, which changes with every rewind; None before the first step."""
        if not self.ready:
            return None
        with self._open() as db:
            return int(db.execute("SELECT value FROM run WHERE key = 'generation'").fetchone()[0])

    @whole
    def keys(self, after: int = 0) -> list[str]:
        """Return the names of all metrics in the steps later than ``after``, in order of first appearance."""
        query = "SELECT DISTINCT key FROM metrics, json_each(data) WHERE step > ? AND step <= ?"
        return list(dict.fromkeys(key for (key,) in self._in_pieces(query, (), after)))

    def rows(self, keys: Sequence[str], after: int = 0) -> Iterator[tuple[Any, ...]]:
        """Yield (step, time, a value for each of ``keys``) for every step after ``after``; missing values are None."""
        columns = "".join(", json_extract(data, ?)" for _ in keys)
        query = f"SELECT step, time{columns} FROM metrics WHERE step > ? AND step <= ? ORDER BY step"
        return self._in_pieces(query, [f'$."{key}"' for key in keys], after)

    def _in_pieces(self, query: str, values: Sequence[str], after: int) -> Iterator[tuple[Any, ...]]:
        """Yield a query's rows, reading ``PIECE`` steps at a time; its last two parameters must bound the steps."""
        if not self.ready:
            return
        with self._open() as db:
            last = db.execute("SELECT max(step) FROM metrics").fetchone()[0] or 0
            for start in range(after, last, PIECE):
                yield from db.execute(query, (*values, start, start + PIECE)).fetchall()

    @whole
    def marks(self, after: int = 0) -> list[tuple[int, float, str]]:
        """Return (id, time, kind) of every event later than the one with the id ``after``."""
        if not self.ready:
            return []
        with self._open() as db:
            return db.execute("SELECT id, time, kind FROM events WHERE id > ? ORDER BY id", (after,)).fetchall()

    @whole
    def first_and_last_evaluation(self, name: str) -> dict[int, dict[str, Any]]:
        """Return the base model's evaluation (step 0) and the newest one, by step; empty if there is none."""
        if not self.ready:
            return {}
        with self._open() as db:
            rows = db.execute(
                "SELECT step, data FROM evaluations WHERE name = :name AND (step = 0 OR step ="
                " (SELECT max(step) FROM evaluations WHERE name = :name)) ORDER BY step",
                {"name": name},
            ).fetchall()
        return {step: from_json(data) for step, data in rows}
