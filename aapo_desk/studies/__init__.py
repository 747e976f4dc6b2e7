"""Comparing runs: their curves, the differences of their configurations, and which one ended better.

Everything here is plain data read from run directories; the screen and the command line display it.
"""

from aapo_desk.studies.comparison import (
    DEFAULT_METRIC,
    LETTERS,
    MOST_RUNS,
    SMOOTHING,
    Comparer,
    Comparison,
    Entry,
    Standing,
    check_metric,
    check_runs,
)
from aapo_desk.studies.curve import AXES, Axis, Points
from aapo_desk.studies.files import save, save_ending, write_csv
from aapo_desk.studies.held_out import Difference, FinalEvaluation, Outcome, Side, between, difference
from aapo_desk.studies.kept import Kept, kept_evaluations
from aapo_desk.studies.wording import figure

__all__ = [
    "AXES",
    "DEFAULT_METRIC",
    "LETTERS",
    "MOST_RUNS",
    "SMOOTHING",
    "Axis",
    "Comparer",
    "Comparison",
    "Difference",
    "Entry",
    "FinalEvaluation",
    "Kept",
    "Outcome",
    "Points",
    "Side",
    "Standing",
    "between",
    "check_metric",
    "check_runs",
    "difference",
    "figure",
    "kept_evaluations",
    "save",
    "save_ending",
    "write_csv",
]
