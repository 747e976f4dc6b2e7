"""The ``readable`` reward: 1 if the ``math`` reward can read an answer in the completion, right or wrong, else 0.

It has no options.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aapo_desk.rewards.base import Completion, Judged, Refusal, Scorer, unknown_options
from aapo_desk.rewards.math import as_written, reader, same_text


def check(options: Mapping[str, Any]) -> Iterable[Refusal]:
    return unknown_options(options)


def build(options: Mapping[str, Any]) -> Scorer:
    read = reader()
    # The first use loads the parser's tables, which must not count against the time limit of a completion.
    read("$\\frac{1}{2}$")

    def score(completion: Completion) -> Judged:
        answers = read(completion.text)
        found = any(not isinstance(answer, str) for answer in answers)
        return Judged(found or same_text(completion.text, completion.answer), as_written(answers))

    return score
