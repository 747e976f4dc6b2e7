"""How an evaluation's unscorable answers enter its accuracy, and the words for it.

Each side of an evaluation (``greedy`` and ``sampled`` in a run's ``evaluations`` table, ``base`` and ``tuned`` in the
``summary`` of ``evaluation.json``) keeps three fields beside its accuracy:

    unscorable      how many answers could not be scored; ``scores`` holds None for each of them
    unscorable_as   "wrong": the accuracy is over all answers, and these count as wrong. Missing in what older versions
                    wrote: these were left out, and the accuracy is over the answers that could be scored
    recounted       true where an older version wrote the side and a reader has computed its accuracy again from its
                    scores; an export's record keeps it, a run's database never does
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNSCORABLE_AS = "unscorable_as"
WRONG, LEFT_OUT = "wrong", "left out"
RECOUNTED = "recounted"

MANY_UNSCORABLE = 0.1
"""The share of an evaluation's answers above which its line asks for a look at the reward."""

SideData = Mapping[str, Any]


def leaves_out(side: SideData) -> bool:
    """Whether this accuracy leaves out answers: it was measured by an older version, and some were unscorable."""
    return bool(side.get("unscorable")) and side.get(UNSCORABLE_AS) != WRONG


def unscorable_mark(side: SideData, answers: int) -> str:
    """The number of unscorable answers in short, to stand beside an accuracy; empty where there are none."""
    count = side.get("unscorable") or 0
    if not count:
        return ""
    return f"{answers - count} of {answers} scored" if leaves_out(side) else f"{count} unscorable"


def unscorable_words(side: SideData, answers: int) -> str:
    """The number of unscorable answers and how the accuracy counts them; empty where there are none."""
    count = side.get("unscorable") or 0
    if not count:
        return ""
    if leaves_out(side):
        return f"{answers - count} of {answers} scored; unscorable answers left out"
    words = f"{count} of {answers} unscorable, counted as wrong"
    return f"{words} (recounted: they were left out when this was measured)" if side.get(RECOUNTED) else words


def evaluation_notes(data: Mapping[str, Any]) -> list[str]:
    """``unscorable_notes`` of a row of the ``evaluations`` table."""
    sides = {name: data.get(name) or {} for name in ("greedy", "sampled")}
    return unscorable_notes(sides, int(data.get("problems") or 0))


def unscorable_notes(sides: Mapping[str, SideData], answers: int) -> list[str]:
    """A note for each of an evaluation's sides that has unscorable answers, and a last one where they are many.

    ``answers``: how many each side gave.
    """
    notes = [f"{name}: {words}" for name, side in sides.items() if (words := unscorable_words(side, answers))]
    if any((side.get("unscorable") or 0) > MANY_UNSCORABLE * answers for side in sides.values()):
        notes.append("MORE THAN A TENTH COULD NOT BE SCORED: check the reward with aapo-desk rewards try")
    return notes
