"""What a run may use up besides its steps, as status.json says it, and in words."""

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
"""The metrics whose sum over the steps it is."""


@dataclass(frozen=True)
class Budget:
    """Seconds of training or sampled completions: ``limit`` is what there is, ``spent`` what is gone of it."""

    unit: str
    limit: float
    spent: float = 0.0

    @property
    def share(self) -> float:
        return min(1.0, self.spent / self.limit)

    @property
    def words(self) -> str:
        """``41 of 120 s``"""
        return f"{self.spent:.0f} of {self.limit:.12g} {UNITS[self.unit]}"


def budget_of(status: Mapping[str, Any]) -> Budget | None:
    """What status.json says of it; None where only the steps end the run."""
    said = status.get("budget")
    try:
        found = Budget(str(said["unit"]), float(said["limit"]), float(said["spent"])) if said else None
    except (KeyError, TypeError, ValueError):
        return None
    return found if found and found.unit in UNITS and found.limit > 0 else None


def planned_budget(run: RunDirectory) -> Budget | None:
    """The same before a trainer has said it: by the settings. Whoever replans the steps takes the budget away."""
    if run.replanned_steps() is not None:
        return None
    return budget_of(run.read_status()) or budget_in(run.read_settings().get("run"))


def budget_in(section: Any) -> Budget | None:
    """The one in the settings' section ``run``, as it lies there."""
    limits = section if isinstance(section, dict) else {}
    found = ((unit, limits.get(unit)) for unit in UNITS)
    return next((Budget(unit, limit) for unit, limit in found if isinstance(limit, int | float) and limit > 0), None)


def share_done(step: int, steps: int, budget: Budget | None) -> float:
    """How far a run is, by what will end it first."""
    return max(step / steps if steps else 0.0, budget.share if budget else 0.0)


def progress(step: int, steps: int, budget: Budget | None, of: str = "/") -> str:
    """``12/300``; ``12, 41 of 120 s`` where a budget will end the run first."""
    if budget and budget.share >= (step / steps if steps else 0.0):
        return f"{step}, {budget.words}"
    return f"{step}{of}{steps}"
