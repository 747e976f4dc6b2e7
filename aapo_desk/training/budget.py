"""A run's budget in addition to its number of steps: seconds of training or sampled completions."""

from __future__ import annotations

from aapo_desk.config import RunSection
from aapo_desk.store import SPENT_BY, Budget, RunWriter


def spent(limits: RunSection, store: RunWriter) -> Budget | None:
    """Return the budget that is closest to its limit, with what the written steps have used of it; None without one.

    Usage is counted from the stored steps, so a resumed run continues the count. Evaluations and checkpoints are free;
    the step that exceeds the limit is still completed.
    """
    asked = {"seconds": limits.seconds, "completions": limits.completions}
    found = [Budget(unit, limit, store.total(*SPENT_BY[unit])) for unit, limit in asked.items() if limit is not None]
    return max(found, key=lambda budget: budget.share, default=None)


def used_up(budget: Budget | None) -> str:
    """Return a message that the budget is used up; empty if there is no budget or some of it is left."""
    if budget is None or budget.spent < budget.limit:
        return ""
    if budget.unit == "seconds":
        return f"run.seconds={budget.limit:g} used up ({budget.spent:.1f} s trained)"
    return f"run.completions={budget.limit:.0f} used up ({budget.spent:.0f} sampled)"
