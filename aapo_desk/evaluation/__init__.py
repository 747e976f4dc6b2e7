"""Is it better than its base? Held-out accuracy with intervals."""

from aapo_desk.evaluation.held_out import NAME, HeldOut, evaluate, judged_by
from aapo_desk.evaluation.intervals import Estimate, paired_difference, proportion

__all__ = ["NAME", "Estimate", "HeldOut", "evaluate", "judged_by", "paired_difference", "proportion"]
