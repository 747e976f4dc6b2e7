"""Which runs are listed, and in which order: pure functions over the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from aapo_desk.tui.labels import STATE_SYMBOLS, model_label
from aapo_desk.tui.listing import RunRow

Value = Callable[[RunRow], float | str | None]

STATES = tuple(STATE_SYMBOLS)  # from those that are at work to those that failed

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
    """By which column, and whether against the direction that the column has by itself."""

    column: str = "age"
    reverse: bool = False

    @property
    def descending(self) -> bool:
        return (self.column in BIGGEST_FIRST) != self.reverse

    @property
    def next(self) -> Order:
        """By the next column."""
        columns = list(VALUES)
        return Order(columns[(columns.index(self.column) + 1) % len(columns)])

    def by(self, column: str) -> Order:
        """By a column; where it is that already, the other way round."""
        return replace(self, reverse=not self.reverse) if column == self.column else Order(column)


def arranged(rows: Sequence[RunRow], order: Order) -> list[RunRow]:
    """The rows in order, the pinned ones on top; those without a value come last, whichever way it goes."""
    value = VALUES[order.column]
    known = [row for row in rows if value(row) is not None]
    known.sort(key=value, reverse=order.descending)  # type: ignore[arg-type]
    ordered = [*known, *(row for row in rows if value(row) is None)]
    return sorted(ordered, key=lambda row: not row.pinned)


def matching(rows: Sequence[RunRow], text: str) -> list[RunRow]:
    """The rows whose name, model or state hold every word of ``text``, in any case."""
    words = text.casefold().split()
    return [
        row
        for row in rows
        if all(word in f"{row.name} {model_label(row.model)} {row.state}".casefold() for word in words)
    ]
