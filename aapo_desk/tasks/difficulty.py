"""Choose the problems of a step by their difficulty (``task.difficulty: adaptive``).

The steps walk through shuffled epochs, as without this option (``order``). If all completions of a problem got the same
score (all right or all wrong), the problem is skipped with probability 1/2 when the walk next comes to it. After two
such visits in a row the probability is 3/4, after three or more 7/8, so the weight of a problem is never zero. A visit
with different scores restores its full weight.

The choice depends only on the run's seed and on the recorded scores, and both are in the checkpoint.
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
    "difficulty is adaptive: problems that are always or never solved are sampled less often, so training differs from "
    "the uniform sampling of the paper"
)
LONGEST_STREAK = 3
"""After this many visits with equal scores in a row, the weight of a problem does not get lower."""


@dataclass(frozen=True)
class Choice:
    """The problems of a step, as indices, and the position of the walk after them."""

    problems: list[int]
    place: int


@dataclass
class Difficulty:
    """The walk of one run, and for each problem the number of visits in a row whose scores were all equal."""

    ids: Sequence[str]
    seed: int
    place: int = 0
    """The position of the next problem in the endless sequence of epochs."""
    streaks: dict[str, int] = field(default_factory=dict)
    """Visits in a row with equal scores, by problem id. Problems without such a streak are absent."""

    @classmethod
    def of(cls, config: RunConfig, problems: Sequence[Problem]) -> Self | None:
        """Create the walk of a run, or return None if ``task.difficulty`` is not adaptive."""
        if config.task.difficulty != "adaptive":
            return None
        return cls([problem.id for problem in problems], config.run.seed)

    @property
    def downweighted(self) -> float:
        """The fraction of the problems whose weight is lowered."""
        return len(self.streaks) / len(self.ids)

    def choose(self, count: int) -> Choice:
        """Return the next ``count`` problems. The state does not change until ``record`` is called."""
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
        """Record the scores of a step's groups, in the order of its problems. None: the completion is unscorable."""
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
        """Return the state as JSON, for a checkpoint."""
        return {"place": self.place, "streaks": self.streaks}

    def restore(self, state: Mapping[str, Any] | None, place: int) -> None:
        """Restore a checkpoint's ``state``. If it has none, start at ``place`` without a history.

        The history of problems that no longer exist is dropped.
        """
        known = set(self.ids)
        streaks = state["streaks"] if state else {}
        self.place = state["place"] if state else place
        self.streaks = {name: streak for name, streak in streaks.items() if name in known}

    def _is_taken(self, index: int, place: int) -> bool:
        streak = self.streaks.get(self.ids[index], 0)
        return streak == 0 or random.Random(f"difficulty {self.seed} {place}").random() < 0.5**streak
