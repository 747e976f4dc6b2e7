"""What two texts have in common, word by word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

# Numbers, words of alphabets, else a character: scripts without blanks are compared character by character.
WORD = re.compile(r"\d+|[A-Za-z\u00c0-\u024f\u0370-\u058f]+|\S")
MOST_CHARACTERS = 12_000
LEAST_SHARED = 0.2

Stretch = tuple[int, int]


@dataclass(frozen=True)
class Difference:
    """The stretches (from, to) of each text that the other has not.

    ``shared``: the share of words the two have in common; None where the texts are too long to compare.
    """

    left: list[Stretch]
    right: list[Stretch]
    shared: float | None

    @property
    def told(self) -> bool:
        """Whether marking the stretches helps: not where nearly everything differs."""
        return self.shared is not None and self.shared >= LEAST_SHARED


def compare(left: str, right: str) -> Difference:
    """Compare two texts by words; blanks do not count."""
    if left == right:
        return Difference([], [], 1.0)
    if max(len(left), len(right)) > MOST_CHARACTERS:
        return Difference([], [], None)
    ours, theirs = list(WORD.finditer(left)), list(WORD.finditer(right))
    # In long texts its junk rule passes over the commonest words: without, a thousand equal words take seconds.
    matcher = SequenceMatcher(None, [word[0] for word in ours], [word[0] for word in theirs])
    only_left: list[Stretch] = []
    only_right: list[Stretch] = []
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind != "equal":
            only_left += _stretch(ours[a:b])
            only_right += _stretch(theirs[c:d])
    return Difference(only_left, only_right, matcher.ratio())


def _stretch(words: Sequence[re.Match[str]]) -> list[Stretch]:
    return [(words[0].start(), words[-1].end())] if words else []
