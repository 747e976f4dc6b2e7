"""What a run may use up besides its steps: seconds of training, sampled completions."""

from __future__ import annotations

from aapo_desk.config import RunSection
from aapo_desk.store import SPENT_BY, Budget, RunWriter


def spent(limits: RunSection, store: RunWriter) -> Budget | None:
    """The budget that will be used up first, with what the steps that are written have used of it; None without one.

    It is counted from what is stored, so a resume goes on counting where the run was. Evaluations and checkpoints cost
    nothing; the step that crosses the line is taken whole.
    """
    asked = {"seconds": limits.seconds, "completions": limits.completions}
    found = [Budget(unit, limit, store.total(*SPENT_BY[unit])) for unit, limit in asked.items() if limit is not None]
    return max(found, key=lambda budget: budget.share, default=None)


def used_up(budget: Budget | None) -> str:
    """That it is used up, in words; empty where there is none or some is left."""
    if budget is None or budget.spent < budget.limit:
        return ""
    if budget.unit == "seconds":
        return f"run.seconds={budget.limit:g} used up ({budget.spent:.1f} s trained)"
    return f"run.completions={budget.limit:.0f} used up ({budget.spent:.0f} sampled)"
