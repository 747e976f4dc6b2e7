"""A run's budget of seconds or completions besides its steps: reading it and showing it as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aapo_desk.store.directory import RunDirectory

UNITS = {"seconds": "s", "completions": "completions"}
SPENT_BY = {
    "seconds": ("seconds_rollout", "seconds_reward", "seconds_update"),
    "completions": ("sampled_completions",),
}
"""The metrics whose sum over all steps is the amount spent, by unit."""


@dataclass(frozen=True)
class Budget:
    """A limit on seconds of training or on sampled completions, and how much of it is ``spent``, in ``unit``s."""

    unit: str
    limit: float
    spent: float = 0.0

    @property
    def share(self) -> float:
        return min(1.0, self.spent / self.limit)

    @property
    def words(self) -> str:
        """The amount spent and the limit, such as ``41 of 120 s``."""
        return f"{self.spent:.0f} of {self.limit:.12g} {UNITS[self.unit]}"


def budget_of(status: Mapping[str, Any]) -> Budget | None:
    """Return the budget recorded in status.json; None if only the number of steps ends the run."""
    recorded = status.get("budget")
    try:
        budget = Budget(str(recorded["unit"]), float(recorded["limit"]), float(recorded["spent"])) if recorded else None
    except (KeyError, TypeError, ValueError):
        return None
    return budget if budget and budget.unit in UNITS and budget.limit > 0 else None


def planned_budget(run: RunDirectory) -> Budget | None:
    """Return a run's budget from its status, or from its settings before a trainer has written a status.

    Returns None if the steps were replanned, since that removes the budget.
    """
    if run.replanned_steps() is not None:
        return None
    return budget_of(run.read_status()) or budget_in(run.read_settings().get("run"))


def budget_in(section: Any) -> Budget | None:
    """Return the budget in the unvalidated settings section ``run``; None if it sets none."""
    limits = section if isinstance(section, dict) else {}
    values = ((unit, limits.get(unit)) for unit in UNITS)
    return next((Budget(unit, limit) for unit, limit in values if isinstance(limit, int | float) and limit > 0), None)


def share_done(step: int, steps: int, budget: Budget | None) -> float:
    """Return the finished share of a run, from 0 to 1, measured by whichever limit will end it first."""
    return max(step / steps if steps else 0.0, budget.share if budget else 0.0)


def progress(step: int, steps: int, budget: Budget | None, of: str = "/") -> str:
    """Return a run's progress as text: ``12/300``, or ``12, 41 of 120 s`` if a budget will end the run first."""
    if budget and budget.share >= (step / steps if steps else 0.0):
        return f"{step}, {budget.words}"
    return f"{step}{of}{steps}"
