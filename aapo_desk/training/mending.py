"""Rewards that fail again and again pause the run, until somebody has mended them or wants to go on without."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from aapo_desk.config import RewardConfig
from aapo_desk.rewards import Completion, FailingReward, RewardError, RewardPool, Score
from aapo_desk.store import RunWriter
from aapo_desk.training.control import Control
from aapo_desk.training.waiting import paused, resumed

log = logging.getLogger(__name__)

PAUSES = "rewards_failing"
IN_A_ROW = 10
"""So many answers in a row that one function could not score pause the run."""
MOST_TEXT = 500
"""Characters of the completion that the event keeps."""


class MendablePool(RewardPool):
    """A run's rewards. After a pause their files are read anew and the completions at hand are scored once more.

    Where nothing was mended, the run goes on without these scores, and pauses after as many again.
    """

    def __init__(self, rewards: Sequence[RewardConfig], control: Control, store: RunWriter) -> None:
        super().__init__(rewards)
        self._control = control
        self._store = store
        self._paths = dict(zip(self.names, (reward.name.rpartition(":")[0] for reward in rewards), strict=True))
        self._failed_as: dict[str, Any] | None = None
        self.reloaded: Callable[[], None] = lambda: None
        """Told that the files were read anew."""

    def score(self, completions: Sequence[Completion], patience: int | None = IN_A_ROW) -> list[Score]:
        """As the pool's, but a reward that fails pauses the run. Raises StopRequested where a stop is asked for."""
        failed: dict[str, Any] | None = None
        while True:
            try:
                if failed is not None:
                    self.reload()
                    self.reloaded()
                    patience = IN_A_ROW if self.definition != failed else None
                return super().score(completions, patience)
            except FailingReward as failing:
                self._pause(self._words(failing), failing)
            except RewardError as error:
                if failed is None:
                    raise
                self._pause(str(error), None)
            failed = self._failed_as

    def _words(self, failing: FailingReward) -> str:
        path = self._paths[failing.name]
        who = f"{failing.name} in {path}" if path else failing.name
        return f"the reward {who} failed on {failing.count} answers in a row, the last: {failing.error}"

    def _pause(self, said: str, failing: FailingReward | None) -> None:
        """Wait until the run is resumed."""
        self._failed_as = self.definition
        run, step = self._store.run, self._store.last_step()
        log.warning("paused: %s", said)
        if failing:
            example = {"count": failing.count, "completion": failing.completion[:MOST_TEXT]}
            error = f"{failing.name}: {failing.error}"
            self._store.write_event(PAUSES, step, function=failing.name, error=error, **example)
        advice = f"mend it, then: aapo-desk resume {run.id} (as it is, that goes on without these scores)"
        with paused(self._control, f"paused: {said}; {advice}"):
            resumed(self._control)
        if failing:
            self._store.write_event("unpaused", step)

    def _wait(self) -> None:
        super()._wait()
        self._control.check()
