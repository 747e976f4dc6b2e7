"""Is it better than its base? Held-out accuracy with intervals.

``held_out`` asks a model and is imported by name: whoever only reads results loads no torch.
"""

from aapo_desk.evaluation.intervals import Estimate, paired_difference, proportion, unpaired_difference

__all__ = ["Estimate", "paired_difference", "proportion", "unpaired_difference"]
