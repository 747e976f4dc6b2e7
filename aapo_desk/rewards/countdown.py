"""The ``countdown`` reward: 1 if the completion's expression makes the target out of the given numbers, else 0.

The expression is looked for inside the last ``<answer>``, else after ``</think>``, else in the whole text; there it is
the last ``\\boxed{}``, else the last line. It may be a side of an equation, ``44 + (19 + 35) = 98``, if all sides equal
the target. It is parsed by the grammar in ``expressions`` and evaluated in fractions, so ``7 / 3 * 3`` is 7.

The right answer gives the target and the numbers: ``98 from 44, 19, 35``, as the task ``countdown`` writes it, or a
solution such as ``44 + (19 + 35)``, as some data sets have it: its value is the target and its numbers are the given
ones. Any other right answer is an error in the data, and the completion is unscorable.

Based on TinyZero (github.com/Jiayi-Pan/TinyZero, verl/utils/reward_score/countdown.py), which gives 1, or 0.1 for any
text in the tags, or 0. Deviations: the 0.1 is an option and needs an expression; the value is exact; no ``eval``.

Options: ``well_formed`` (default 0): the score of a wrong expression (a number alone does not count), to teach the
form. ``all_numbers`` (default true): each given number must be used exactly once; false: at most once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from aapo_desk.rewards.base import Completion, Refusal, Scorer, one_line, unknown_options
from aapo_desk.rewards.expressions import LONGEST, Expression, parse
from aapo_desk.rewards.number_options import check_number
from aapo_desk.rewards.places import answer_place

_NUMBER = r"-?[0-9]{1,20}"
_GIVEN = re.compile(
    rf"\s*(?P<target>{_NUMBER}) from (?P<some>some of )?\[?(?P<numbers>{_NUMBER}(?:[, ]\s*{_NUMBER}){{0,99}})\]?"
    r"(?: by (?P<signs>[-+*/ ]+))?\s*"
)


@dataclass(frozen=True)
class Rules:
    """The target of an expression, and the numbers and signs that it must or may use."""

    target: Fraction
    numbers: Counter[int]
    signs: frozenset[str]
    all_numbers: bool

    def kept_by(self, expression: Expression) -> bool:
        used = Counter(expression.numbers)
        fits = used == self.numbers if self.all_numbers else used <= self.numbers
        return fits and expression.signs <= self.signs and expression.value == self.target


def check(options: Mapping[str, Any]) -> Iterator[Refusal]:
    yield from unknown_options(options, ("well_formed", "all_numbers"))
    yield from check_number(options, "well_formed", "must be a number from 0 to 1", lambda value: 0 <= value <= 1)
    if not isinstance(options.get("all_numbers", True), bool):
        yield Refusal("all_numbers", "must be true or false", options["all_numbers"])


def build(options: Mapping[str, Any]) -> Scorer:
    well_formed = float(options.get("well_formed", 0.0))
    all_numbers: bool = options.get("all_numbers", True)

    def score(completion: Completion) -> float:
        rules = rules_of(completion.answer, all_numbers)
        sides = _sides(_place(completion.text))
        if any(map(rules.kept_by, sides)) and all(side.value == rules.target for side in sides):
            return 1.0
        return well_formed if any(side.signs for side in sides) else 0.0

    return score


@lru_cache(maxsize=512)
def rules_of(answer: str, all_numbers: bool) -> Rules:
    """Parse a right answer. Raises ValueError if it is neither a target with numbers nor a solution."""
    given = _GIVEN.fullmatch(answer)
    if given:
        numbers = Counter(map(int, re.findall(_NUMBER, given["numbers"])))
        signs = frozenset((given["signs"] or "+-*/").replace(" ", ""))
        return Rules(Fraction(int(given["target"])), numbers, signs, all_numbers and not given["some"])
    solution = parse(answer)
    target = solution.value if solution and solution.signs else None
    if solution is None or target is None:
        raise ValueError(
            f"the right answer must be like '98 from 44, 19, 35' or a solution, not {one_line(answer, 60)!r}"
        )
    return Rules(target, Counter(solution.numbers), frozenset("+-*/"), all_numbers)


def _place(text: str) -> str:
    """Return the part of the text that should be the expression."""
    text = answer_place(text)
    start = text.rfind("\\boxed{")
    end = text.find("}", start)
    if start >= 0 and end >= 0:
        return text[start + len("\\boxed{") : end]
    return text.rstrip().rpartition("\n")[2]


def _sides(text: str) -> list[Expression]:
    """Return the sides of an equation, or a single expression; empty if any side is not an expression."""
    text = text.lstrip(" \t\r\n$`").rstrip(" \t\r\n$`.")
    if len(text) > LONGEST:
        return []
    sides = [parse(side) for side in text.split("=")]
    return [side for side in sides if side is not None] if None not in sides else []
