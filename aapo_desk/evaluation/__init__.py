"""Evaluation: the accuracy of a model and of its base on held-out problems, with confidence intervals.

accuracy, intervals             the share of right answers, and confidence intervals
benchmarks, request, results    the named tasks; what to evaluate; the answers and the files they are stored in
asking, held_out, batches       generate and score answers: for the trainer's evaluations, and for all others
work                            run a complete evaluation (``aapo-desk eval``)

The modules of the last two lines load torch and are imported by name only.
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
