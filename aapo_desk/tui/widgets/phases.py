"""The phases of a step and the time that each took."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from aapo_desk.tui.labels import number
from aapo_desk.tui.widgets.cells import Piece
from aapo_desk.tui.widgets.part import Part

BLOCKS = {"rollout": "█", "reward": "░", "update": "▒"}


@dataclass(frozen=True)
class Phases:
    """The seconds that each phase of a step took; None if unknown."""

    rollout: float | None = None
    reward: float | None = None
    update: float | None = None

    def known(self) -> dict[str, float]:
        values = {"rollout": self.rollout, "reward": self.reward, "update": self.update}
        return {name: value for name, value in values.items() if value is not None and value >= 0}


class PhasesView(Part):
    """A panel with a bar of each phase's share and a legend, next to the bar or below it if there are two lines."""

    KIND = "phases"
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "phases--title",
        "phases--label",
        "phases--rollout",
        "phases--reward",
        "phases--update",
    }

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._phases = Phases()

    def show(self, phases: Phases) -> None:
        if phases != self._phases:
            self._phases = phases
            self.refresh()

    def pieces(self, y: int) -> list[Piece]:
        width = self.size.width
        title: Piece = ("phases of a step  ", self._style("title"))
        legend = self._legend()
        if self.size.height > 1:
            return [title, *self._bar(width - len(title[0]))] if y == 0 else legend if y == 1 else []
        return [title, *self._bar(width - len(title[0]) - _width(legend) - 2), ("  ", title[1]), *legend]

    def _bar(self, width: int) -> list[Piece]:
        known = self._phases.known()
        sizes = shared(list(known.values()), width)
        return [(BLOCKS[name] * size, self._style(name)) for name, size in zip(known, sizes, strict=True)]

    def _legend(self) -> list[Piece]:
        known = self._phases.known()
        pieces: list[Piece] = []
        for name, value in known.items():
            pieces += [
                (f"{BLOCKS[name]} ", self._style(name)),
                (f"{name} {number(value, 1)} s ", self._style("label")),
            ]
        return pieces or [("no data", self._style("label"))]


def shared(values: list[float], width: int) -> list[int]:
    """Divide ``width`` columns in proportion to the values, with none left over.

    A value above 0 gets at least one column if another can spare it.
    """
    total = math.fsum(values)
    if total <= 0 or width < 1:
        return [0] * len(values)
    ends = [round(math.fsum(values[: place + 1]) / total * width) for place in range(len(values))]
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    for place, value in enumerate(values):
        largest = sizes.index(max(sizes))
        if value > 0 and not sizes[place] and sizes[largest] > 1:
            sizes[place], sizes[largest] = 1, sizes[largest] - 1
    return sizes


def _width(pieces: list[Piece]) -> int:
    return sum(len(text) for text, _ in pieces)
