"""How an evaluation's unscorable answers count in its accuracy, and the text that says so.

Each side of an evaluation (``greedy`` and ``sampled`` in a run's ``evaluations`` table, ``base`` and ``tuned`` in the
``summary`` of ``evaluation.json``) has three fields besides its accuracy:

    unscorable      the number of answers that could not be scored; ``scores`` holds None for each of them
    unscorable_as   "wrong": the accuracy is over all answers, and unscorable ones count as wrong. Older versions did
                    not write this field: their accuracy leaves unscorable answers out
    recounted       true if an older version wrote the side and a reader has computed its accuracy again from its
                    scores; an export's record keeps this field, a run's database never does
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNSCORABLE_AS = "unscorable_as"
WRONG, LEFT_OUT = "wrong", "left out"
RECOUNTED = "recounted"

MANY_UNSCORABLE = 0.1
"""The share of unscorable answers above which the notes ask the user to check the reward."""

SideData = Mapping[str, Any]


def leaves_out(side: SideData) -> bool:
    """Return whether this accuracy leaves out unscorable answers, as those measured by older versions do."""
    return bool(side.get("unscorable")) and side.get(UNSCORABLE_AS) != WRONG


def unscorable_mark(side: SideData, answers: int) -> str:
    """Return a short count of unscorable answers to show beside an accuracy; empty if there are none."""
    count = side.get("unscorable") or 0
    if not count:
        return ""
    return f"{answers - count} of {answers} scored" if leaves_out(side) else f"{count} unscorable"


def unscorable_words(side: SideData, answers: int) -> str:
    """Return the number of unscorable answers and how the accuracy counts them; empty if there are none."""
    count = side.get("unscorable") or 0
    if not count:
        return ""
    if leaves_out(side):
        return f"{answers - count} of {answers} scored; unscorable answers left out"
    words = f"{count} of {answers} unscorable, counted as wrong"
    return f"{words} (recounted: they were left out when this was measured)" if side.get(RECOUNTED) else words


def evaluation_notes(data: Mapping[str, Any]) -> list[str]:
    """Return ``unscorable_notes`` for a row of the ``evaluations`` table."""
    sides = {name: data.get(name) or {} for name in ("greedy", "sampled")}
    return unscorable_notes(sides, int(data.get("problems") or 0))


def unscorable_notes(sides: Mapping[str, SideData], answers: int) -> list[str]:
    """Return a note for each side with unscorable answers, and a warning if there are many.

    ``answers`` is the number of answers on each side.
    """
    notes = [f"{name}: {words}" for name, side in sides.items() if (words := unscorable_words(side, answers))]
    if any((side.get("unscorable") or 0) > MANY_UNSCORABLE * answers for side in sides.values()):
        notes.append("MORE THAN A TENTH COULD NOT BE SCORED: check the reward with aapo-desk rewards try")
    return notes
