"""Filtering and sorting of the runs that Home lists: pure functions over the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from aapo_desk.tui.labels import STATE_SYMBOLS, model_label
from aapo_desk.tui.listing import RunRow

Value = Callable[[RunRow], float | str | None]

STATES = tuple(STATE_SYMBOLS)  # in this order: from running to failed

VALUES: dict[str, Value] = {
    "state": lambda row: STATES.index(row.state) if row.state in STATES else len(STATES),
    "name": lambda row: row.name.casefold(),
    "model": lambda row: model_label(row.model).casefold(),
    "step": lambda row: row.step,
    "reward": lambda row: row.reward,
    "trend": lambda row: row.rise,
    "age": lambda row: -row.created,
}
BIGGEST_FIRST = frozenset({"step", "reward", "trend"})


@dataclass(frozen=True)
class Order:
    """A sort order: the column, and whether its default direction is reversed."""

    column: str = "age"
    reverse: bool = False

    @property
    def descending(self) -> bool:
        return (self.column in BIGGEST_FIRST) != self.reverse

    @property
    def next(self) -> Order:
        """The order by the next column, in its default direction."""
        columns = list(VALUES)
        return Order(columns[(columns.index(self.column) + 1) % len(columns)])

    def by(self, column: str) -> Order:
        """Return the order by a column, reversed if that is the current column already."""
        return replace(self, reverse=not self.reverse) if column == self.column else Order(column)


def arranged(rows: Sequence[RunRow], order: Order) -> list[RunRow]:
    """Return the rows sorted: pinned runs first, and rows without a value last in either direction."""
    value = VALUES[order.column]
    known = [row for row in rows if value(row) is not None]
    known.sort(key=value, reverse=order.descending)  # type: ignore[arg-type]
    ordered = [*known, *(row for row in rows if value(row) is None)]
    return sorted(ordered, key=lambda row: not row.pinned)


def matching(rows: Sequence[RunRow], text: str) -> list[RunRow]:
    """Return the rows whose name, model or state contain every word of ``text``, ignoring case."""
    words = text.casefold().split()
    return [
        row
        for row in rows
        if all(word in f"{row.name} {model_label(row.model)} {row.state}".casefold() for word in words)
    ]
