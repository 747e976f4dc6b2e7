"""What a run may use up besides its steps: seconds of training, sampled completions."""

from __future__ import annotations

from aapo_desk.config import RunSection
from aapo_desk.store import RunWriter

SECONDS = ("seconds_rollout", "seconds_reward", "seconds_update")
COMPLETIONS = "sampled_completions"


def used_up(limits: RunSection, store: RunWriter) -> str:
    """Which budget the steps that are written have used up, in words; empty where there is none or some is left.

    It is counted from what is stored, so a resume goes on counting where the run was. Evaluations and checkpoints cost
    nothing; the step that crosses the line is taken whole.
    """
    if limits.seconds is not None and (spent := store.total(*SECONDS)) >= limits.seconds:
        return f"run.seconds={limits.seconds:g} used up ({spent:.1f} s trained)"
    if limits.completions is not None and (count := store.total(COMPLETIONS)) >= limits.completions:
        return f"run.completions={limits.completions} used up ({count:.0f} sampled)"
    return ""
