"""The ``repetition`` reward: a penalty for repeated phrases.

    -penalty * (1 - distinct n-grams / all n-grams)         0 if there are fewer than n words

over the completion's words in lower case. From "Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv
2502.03373, appendix C.2), in the form that open-r1 uses: one penalty for the whole text instead of one per token.

Options: ``words``, the n (default 3), and ``penalty``, the largest penalty (default 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aapo_desk.rewards.base import Completion, Refusal, Scorer, unknown_options
from aapo_desk.rewards.number_options import check_count, check_number


def check(options: Mapping[str, Any]) -> Iterator[Refusal]:
    yield from unknown_options(options, ("words", "penalty"))
    yield from check_count(options, "words", "must be a number of words, 1 or more")
    yield from check_number(
        options, "penalty", "must be a number above 0: the largest penalty", lambda value: value > 0
    )


def bounds(options: Mapping[str, Any]) -> tuple[float, float]:
    """Return the lowest and the highest possible score."""
    return -float(options.get("penalty", 1.0)), 0.0


def build(options: Mapping[str, Any]) -> Scorer:
    size: int = options.get("words", 3)
    penalty = float(options.get("penalty", 1.0))

    def score(completion: Completion) -> float:
        words = completion.text.lower().split()
        count = len(words) - size + 1
        if count <= 0:
            return 0.0
        different = len({tuple(words[start : start + size]) for start in range(count)})
        return -penalty * (1 - different / count)

    return score
