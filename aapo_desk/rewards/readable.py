"""The ``readable`` reward: 1 where the ``math`` reward can read an answer in the completion, right or wrong, else 0.

No options.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aapo_desk.rewards.base import Completion, Refusal, Scorer, unknown_options
from aapo_desk.rewards.math import reader, same_text


def check(options: Mapping[str, Any]) -> Iterable[Refusal]:
    return unknown_options(options)


def build(options: Mapping[str, Any]) -> Scorer:
    read = reader()
    read("$\\frac{1}{2}$")  # The first use loads the parser's tables; that is no completion's time.

    def score(completion: Completion) -> float:
        found = any(not isinstance(answer, str) for answer in read(completion.text))
        return float(found or same_text(completion.text, completion.answer))

    return score
