"""Is it better than its base? Held-out accuracy with intervals.

accuracy, intervals             right answers among all answers; what a number of problems can tell
benchmarks, request, results    the named tasks; what is asked for; what was answered, and where it lies
asking, held_out, batches       a model answers: the trainer's evaluations, and any other
work                            the whole of ``aapo-desk eval``

Those of the last two lines load torch and are imported by name.
"""

from aapo_desk.evaluation.intervals import (
    Estimate,
    mean_of_means,
    paired_difference,
    proportion,
    unpaired_difference,
)

__all__ = [
    "Estimate",
    "mean_of_means",
    "paired_difference",
    "proportion",
    "unpaired_difference",
]
