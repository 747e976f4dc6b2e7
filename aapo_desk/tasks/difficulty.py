"""Which problems a step gets where their difficulty counts (``task.difficulty: adaptive``).

The steps walk through shuffled epochs as they do without it (``order``). A problem whose group of completions got the
same score throughout, all right or all wrong, is passed over when the walk next comes to it with probability 1/2, after
two such visits in a row 3/4, after three and more 7/8: its weight is never zero. A visit with different scores gives it
its full weight back.

Which step gets what follows from the run's seed and from what was recorded, both kept in the checkpoint.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from aapo_desk.config import RunConfig
from aapo_desk.tasks.order import epoch_order
from aapo_desk.tasks.records import Problem

ADAPTIVE = (
    "difficulty is adaptive: problems that are always or never solved come less often, so the problems trained on are "
    "not those of the paper's even sampling"
)
LONGEST_STREAK = 3
"""More visits without a difference do not lower a problem's weight further."""


@dataclass(frozen=True)
class Choice:
    """A step's problems, as indices, and where the walk then stands."""

    problems: list[int]
    place: int


@dataclass
class Difficulty:
    """The walk of one run, and how many visits in a row each problem's group had no differences."""

    ids: Sequence[str]
    seed: int
    place: int = 0
    """In the endless row of epochs: the place of the next problem."""
    streaks: dict[str, int] = field(default_factory=dict)
    """By the problem's id; without those of no streak."""

    @classmethod
    def of(cls, config: RunConfig, problems: Sequence[Problem]) -> Self | None:
        """None where the run does not look at difficulty."""
        if config.task.difficulty != "adaptive":
            return None
        return cls([problem.id for problem in problems], config.run.seed)

    @property
    def downweighted(self) -> float:
        """The share of the problems whose weight is lowered."""
        return len(self.streaks) / len(self.ids)

    def choose(self, count: int) -> Choice:
        """The next ``count`` problems. Nothing is changed before ``record``."""
        chosen: list[int] = []
        place = self.place
        while len(chosen) < count:
            epoch, position = divmod(place, len(self.ids))
            index = epoch_order(len(self.ids), epoch, self.seed)[position]
            if self._is_taken(index, place):
                chosen.append(index)
            place += 1
        return Choice(chosen, place)

    def record(self, choice: Choice, scores: Sequence[Sequence[float | None]]) -> None:
        """What the groups of a step got, in the order of its problems. None: could not be scored."""
        self.place = choice.place
        for index, group in zip(choice.problems, scores, strict=True):
            scored = [score for score in group if score is not None]
            if len(scored) < 2:
                continue
            if min(scored) == max(scored):
                self.streaks[self.ids[index]] = min(self.streaks.get(self.ids[index], 0) + 1, LONGEST_STREAK)
            else:
                self.streaks.pop(self.ids[index], None)

    def state(self) -> dict[str, Any]:
        """As JSON, for a checkpoint."""
        return {"place": self.place, "streaks": self.streaks}

    def restore(self, state: Mapping[str, Any] | None, place: int) -> None:
        """Go on from a checkpoint's ``state``; from one that has none, at ``place`` and without a history.

        What is known of problems that there no longer are is forgotten.
        """
        known = set(self.ids)
        streaks = state["streaks"] if state else {}
        self.place = state["place"] if state else place
        self.streaks = {name: streak for name, streak in streaks.items() if name in known}

    def _is_taken(self, index: int, place: int) -> bool:
        streak = self.streaks.get(self.ids[index], 0)
        return streak == 0 or random.Random(f"difficulty {self.seed} {place}").random() < 0.5**streak
