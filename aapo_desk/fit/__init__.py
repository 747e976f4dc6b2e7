"""Judging from the model's shape whether a run fits the available memory, and what would help. Works without torch."""

from aapo_desk.fit.changes import Change, remedies
from aapo_desk.fit.terms import Term, terms
from aapo_desk.fit.verdict import Fit, Room, Verdict, configuration_of, judge, model_config, room, shape_of, spills

__all__ = [
    "Change",
    "Fit",
    "Room",
    "Term",
    "Verdict",
    "configuration_of",
    "judge",
    "model_config",
    "remedies",
    "room",
    "shape_of",
    "spills",
    "terms",
]
