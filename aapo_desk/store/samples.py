"""Browsing a run's stored completions: finding the steps that have any, and searching for text."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aapo_desk.store.reader import RunReader

# A search adapts the number of steps per transaction so that each transaction takes well under 50 ms.
FIRST_CHUNK = 16
QUICK, SLOW = 0.008, 0.02  # seconds


@dataclass(frozen=True)
class Span:
    """The first and last step with stored completions, and the generation of the history they belong to."""

    first: int
    last: int
    generation: int


@dataclass(frozen=True, order=True)
class Place:
    """The position of a pair of completions: policy row and reference row ``row`` of ``step``."""

    step: int
    row: int


@dataclass(frozen=True)
class _Stretch:
    """A range of positions to search: after ``low``, up to and including ``high``."""

    low: Place
    high: Place


class SampleReader(RunReader):
    """A reader that browses and searches the samples. Every query is a short transaction of its own."""

    def stored_span(self) -> Span | None:
        """Return the range of steps with samples; None if none are stored."""
        if not self.ready:
            return None
        with self._open() as db:
            first, last = db.execute(
                "SELECT (SELECT MIN(step) FROM samples), (SELECT MAX(step) FROM samples)"
            ).fetchone()
            generation = int(db.execute("SELECT value FROM run WHERE key = 'generation'").fetchone()[0])
        return None if first is None else Span(first, last, generation)

    def step_near(self, step: int, forward: bool) -> int | None:
        """Return the nearest step with samples at or after ``step`` (at or before it if not ``forward``).

        If there is none in that direction, return the last (first) step with samples; None if none are stored.
        """
        if not self.ready:
            return None
        onward = "SELECT MIN(step) FROM samples WHERE step >= ?", "SELECT MAX(step) FROM samples"
        back = "SELECT MAX(step) FROM samples WHERE step <= ?", "SELECT MIN(step) FROM samples"
        near, end = onward if forward else back
        with self._open() as db:
            found = db.execute(near, (step,)).fetchone()[0]
            return db.execute(end).fetchone()[0] if found is None else int(found)

    def find(self, text: str, start: Place, forward: bool, going_on: Callable[[int], bool]) -> Place | None:
        """Return the next pair after ``start`` whose completions or prompt contain ``text``; None if there is none.

        The search wraps around the end, and looks at ``start`` itself last. The letters a to z match in either case.

        Args:
            text: The text to search for.
            start: The position after which (or before which) the search begins.
            forward: The direction of the search.
            going_on: Called with the step that the search has reached; the search stops if it returns False.
        """
        span = self.stored_span()
        if span is None or not text:
            return None
        last, first = Place(span.last + 1, 0), Place(span.first - 1, 0)
        border = start if forward else Place(start.step, start.row - 1)
        above, below = _Stretch(border, last), _Stretch(first, border)
        for stretch in (above, below) if forward else (below, above):
            for low, high in _chunks(stretch.low.step, stretch.high.step, forward):
                if not going_on(low if forward else high):
                    return None
                with self._open() as db:
                    found = _first_match(db, stretch, (low, high), text, forward)
                if found is not None:
                    return found
        return None


def _chunks(low: int, high: int, forward: bool) -> Iterator[tuple[int, int]]:
    """Yield ranges of steps whose size adapts to the time that the caller spent on the previous range."""
    size = FIRST_CHUNK
    while low <= high:
        begun = time.monotonic()
        if forward:
            yield low, min(high, low + size - 1)
            low += size
        else:
            yield max(low, high - size + 1), high
            high -= size
        taken = time.monotonic() - begun
        if taken < QUICK:
            size *= 2
        elif taken > SLOW:
            size = max(1, size // 4)


def _first_match(
    db: sqlite3.Connection, stretch: _Stretch, steps: tuple[int, int], text: str, forward: bool
) -> Place | None:
    # LIKE stops at a NUL character, instr does not, so both are needed.
    like = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    order = "step, row" if forward else "step DESC, row DESC"
    row = db.execute(
        "SELECT step, row FROM samples WHERE step BETWEEN :first AND :last"
        " AND (step, row) > (:low_step, :low_row) AND (step, row) <= (:high_step, :high_row)"
        " AND (completion LIKE :like ESCAPE '\\' OR prompt LIKE :like ESCAPE '\\'"
        f" OR instr(completion, :text) OR instr(prompt, :text)) ORDER BY {order} LIMIT 1",
        {
            "first": steps[0],
            "last": steps[1],
            "low_step": stretch.low.step,
            "low_row": stretch.low.row,
            "high_step": stretch.high.step,
            "high_row": stretch.high.row,
            "like": like,
            "text": text,
        },
    ).fetchone()
    return Place(*row) if row else None
