"""Rows that teach: the share of completions with a non-zero advantage, from the group alone and with the margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from aapo_desk.tui.labels import percent
from aapo_desk.tui.widgets.blocks import bar, spark
from aapo_desk.tui.widgets.cells import Piece
from aapo_desk.tui.widgets.part import Part

LEAST_SPARK = 8
LONG_LABELS = 72


@dataclass(frozen=True)
class Shares:
    """A share at the selected step, and its values up to that step."""

    now: float | None = None
    before: Sequence[float] = field(default_factory=list)


class TeachingView(Part):
    """A panel of two labelled bars, next to each other in one line or below each other with their history."""

    KIND = "teaching"
    COMPONENT_CLASSES: ClassVar[set[str]] = {"teaching--title", "teaching--label", "teaching--group", "teaching--all"}

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._group = Shares()
        self._all = Shares()
        self._margin = True

    def show(self, group: Shares, everything: Shares, margin: bool = True) -> None:
        """Show the shares of rows with a group advantage (``group``) and with any advantage (``everything``).

        For an algorithm without a ``margin`` the two are the same, and only ``everything`` is shown.
        """
        if (group, everything, margin) != (self._group, self._all, self._margin):
            self._group, self._all, self._margin = group, everything, margin
            self.refresh()

    def pieces(self, y: int) -> list[Piece]:
        return self._one_line() if self.size.height < 3 else self._stacked(y)

    def _one_line(self) -> list[Piece]:
        long = self.size.width >= LONG_LABELS
        title, group, everything = (
            ("rows that teach", "group alone", "with margin") if long else ("teach", "group", "all")
        )
        taken = len(title + group + everything) + 2 * len("   ▕▏100 %")
        size = max(4, (self.size.width - taken) // 2)
        if not self._margin:
            return [(f"{title} ", self._style("title")), *self._gauge(self._all.now, size, "all")]
        return [
            (title, self._style("title")),
            (f"  {group} ", self._style("label")),
            *self._gauge(self._group.now, size, "group"),
            (f"  {everything} ", self._style("label")),
            *self._gauge(self._all.now, size, "all"),
        ]

    def _gauge(self, share: float | None, size: int, part: str) -> list[Piece]:
        edge = self._style("label")
        return [("▕", edge), (bar(share, size), self._style(part)), ("▏", edge), (f"{percent(share):>5}", edge)]

    def _stacked(self, y: int) -> list[Piece]:
        if y == 0:
            return [("rows that teach", self._style("title"))]
        rows = [("group alone", self._group, "group"), ("with margin", self._all, "all")]
        if not self._margin:
            rows = [("share", self._all, "all")]
        if y > len(rows):
            return []
        label, shares, part = rows[y - 1]
        room = self.size.width - 24
        size = min(16, max(6, room // 2))
        pieces = [(f"{label} ", self._style("label")), *self._gauge(shares.now, size, part)]
        left = self.size.width - sum(len(text) for text, _ in pieces) - 2
        if left >= LEAST_SPARK:
            pieces.append((f"  {spark(shares.before, left)}", self._style(part)))
        return pieces
