"""The ``numeric`` reward: 1 if the completion's number is close enough to the right answer, else 0.

    |number - answer| <= max(absolute, relative * |answer|)

The completion's number is looked for inside the last ``<answer>``, else after ``</think>``, else in the whole text.
There it is the number in the last ``\\boxed{}``, else the last number. It may have a sign, thousands separated by
commas, a decimal point, an exponent or a percent sign, or be a fraction of two whole numbers. A completion without a
number scores 0. A right answer that is not a number is an error in the data, and the completion is unscorable.

Options: ``relative`` (default 0.01: one percent) and ``absolute`` (default 0).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from aapo_desk.rewards.base import Completion, Refusal, Scorer, one_line, unknown_options
from aapo_desk.rewards.number_options import check_number
from aapo_desk.rewards.places import answer_place

_NUMBER = re.compile(
    r"(?<![\w.])(?P<value>[-+]?(?:\d{1,3}(?:,\d{3}){1,9}(?!\d)|\d+)?(?:\.\d+)?(?<=\d)(?:[eE][-+]?\d+)?)"
    r"(?:/(?P<below>\d+))?(?P<percent>\s?\\?%)?"
)
_BOXED = re.compile(r"\\boxed\s*\{([^{}]*)\}")


def check(options: Mapping[str, Any]) -> Iterator[Refusal]:
    yield from unknown_options(options, ("relative", "absolute"))
    for name in ("relative", "absolute"):
        yield from check_number(options, name, "must be a number, 0 or more", lambda value: value >= 0)


def build(options: Mapping[str, Any]) -> Scorer:
    relative, absolute = float(options.get("relative", 0.01)), float(options.get("absolute", 0.0))

    def score(completion: Completion) -> float:
        right = last_number(completion.answer)
        if right is None:
            raise ValueError(f"the right answer is not a number: {one_line(completion.answer, 60)!r}")
        given = last_number(completion.text)
        return float(given is not None and abs(given - right) <= max(absolute, relative * abs(right)))

    return score


def last_number(text: str) -> float | None:
    """Return the last number of a text, or None if it has none."""
    text = answer_place(text).replace("\N{MINUS SIGN}", "-")
    boxed = _BOXED.findall(text)
    found = list(_NUMBER.finditer(boxed[-1] if boxed else text))
    return _value(found[-1]) if found else None


def _value(found: re.Match[str]) -> float | None:
    value = float(found["value"].replace(",", ""))
    if found["below"]:
        below = float(found["below"])
        if not below:
            return None
        value /= below
    return value / 100 if found["percent"] else value
