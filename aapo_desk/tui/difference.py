"""A word-by-word comparison of two texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

# A number, a word of an alphabetic script, or a single character: scripts without spaces are compared by characters.
WORD = re.compile(r"\d+|[A-Za-z\u00c0-\u024f\u0370-\u058f]+|\S")
MOST_CHARACTERS = 12_000
LEAST_SHARED = 0.2

Stretch = tuple[int, int]


@dataclass(frozen=True)
class Difference:
    """The stretches of each text that the other does not have, as (start, end) character offsets.

    ``shared``: the share of words that the two have in common (0 to 1); None if the texts are too long to compare.
    """

    left: list[Stretch]
    right: list[Stretch]
    shared: float | None

    @property
    def told(self) -> bool:
        """True if it helps to mark the stretches: not if the texts are too long, or nearly everything differs."""
        return self.shared is not None and self.shared >= LEAST_SHARED


def compare(left: str, right: str) -> Difference:
    """Compare two texts by words, ignoring white space."""
    if left == right:
        return Difference([], [], 1.0)
    if max(len(left), len(right)) > MOST_CHARACTERS:
        return Difference([], [], None)
    ours, theirs = list(WORD.finditer(left)), list(WORD.finditer(right))
    # For long texts SequenceMatcher's autojunk ignores the most frequent words. Without it, texts that repeat a word
    # a thousand times take seconds.
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
