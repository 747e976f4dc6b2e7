"""The ``math`` reward: 1 if the completion's answer equals the right answer, else 0, by math-verify.

math-verify finds the answer in the text and compares the two as mathematics (``1/2`` is ``0.5``). Only the last
``<answer>`` is searched if the text has one, else the text after ``</think>``, else the whole text. A completion
without a readable answer is wrong and scores 0. An error inside math-verify raises, and a hang is ended from
outside; neither scores 0. Sympy's own parser executes its input, so model text never reaches it, except for digits,
signs and brackets (which math-verify passes to it). The digits of every script count: ``７２`` and ``٧٢`` are 72.

Option: ``worked_out`` (default false): if the right answer is a number, ``12 + 7`` does not count as 19. Use it for
generated arithmetic, where a policy would soon learn to repeat the question.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import product
from typing import Any

from aapo_desk.rewards.base import Completion, Judged, Refusal, Scorer, unknown_options
from aapo_desk.rewards.places import answer_place

Reader = Callable[[str], tuple[Any, ...]]

# math-verify reads formulas only between LaTeX delimiters, but numbers anywhere. So a text that is a single formula
# gets delimiters.
_MARKED = re.compile(r"\$|\\\(|\\\[|\\boxed")
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:[ ,]\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?|[.,]\d+)\.?")
_NOT_LATEX = re.compile(r"[\n#%`]|\*\*|[\u0400-\u1fff\u2c00-\uffff]")
_COMMAND = re.compile(r"\\(?:text|mbox|textbf|mathrm|operatorname|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")
_FUNCTION = re.compile(r"\b(?:a(?:rc)?)?(?:sin|cos|tan|cot|sec|csc)h?\b|\b(?:log|ln|exp|sqrt|pi|mod|min|max|lim|det)\b")
_WORD = r"[^\W\d_]{2,}"
_PROSE = re.compile(rf"[^\W\d_]{{4,}}|\b{_WORD}[.,:;!?]*\s+[-\w$]|\w[.,:;!?]*\s+{_WORD}\b|^{_WORD}[.,:;!?]*$")
_COMMA = re.compile(r"-?\d+,\d+")  # either a decimal comma or two numbers
_DIGIT = re.compile(r"[^\D0-9]")  # digits of other scripts: math-verify finds them but cannot parse them
_ROOT = re.compile(r"\\sqrt(\[\d+\])?\(([^()]*)\)")  # \sqrt(3) means \sqrt{3}; LaTeX would take only the bracket
_LONGEST_FORMULA = 500


def check(options: Mapping[str, Any]) -> Iterator[Refusal]:
    yield from unknown_options(options, ("worked_out",))
    if not isinstance(options.get("worked_out", False), bool):
        yield Refusal("worked_out", "must be true or false", options["worked_out"])


def build(options: Mapping[str, Any]) -> Scorer:
    from math_verify import verify
    from sympy.core.random import seed  # type: ignore[import-untyped]

    read = reader()
    worked_out: bool = options.get("worked_out", False)

    def score(completion: Completion) -> Judged:
        if same_text(completion.text, completion.answer):
            return Judged(1.0, completion.text.strip())
        right = read(completion.answer) or read(f"${completion.answer}$")
        if not right:
            raise ValueError("the right answer is empty")
        seed(0)  # sympy tests equality with random numbers, and a resumed run must get the same scores
        found = read(completion.text)
        written = as_written(found)
        broken: Exception | None = None
        for gold, given in sorted(product(right, found), key=_texts_first):
            if worked_out and is_number(gold) and is_undone(given):
                continue
            try:
                if verify(gold, given, timeout_seconds=None, raise_on_error=True):
                    return Judged(1.0, written)
            except Exception as error:  # noqa: BLE001 (another reading of the same text may still be equal)
                broken = error
        if broken is not None:
            raise broken
        return Judged(0.0, written)

    # The first use loads the parser's tables, which must not count against the time limit of a completion.
    score(Completion("$\\frac{1}{3}$", "", "$\\frac{1}{2}$", 1, 1, False))
    return score


@lru_cache(maxsize=1)
def reader() -> Reader:
    """Return a function that finds the answer in a text.

    The function returns the answer as a sympy object and as it is written, or only the latter if it is not a formula.
    """
    from math_verify import parse

    @lru_cache(maxsize=512)
    def read(text: str) -> tuple[Any, ...]:
        # math-verify's own time limit uses signals, which C code delays. The pool's limit always works.
        found = parse(prepare(text), parsing_timeout=None, raise_on_error=True)
        if _COMMA.fullmatch(text.strip()):
            found += parse(f"${text}$", parsing_timeout=None, raise_on_error=True)
        return tuple(found)

    return read


def as_written(answers: tuple[Any, ...]) -> str | None:
    """Return the answer that ``reader`` found, as it is written in the text, or None if it found nothing."""
    return next((answer for answer in answers if isinstance(answer, str)), None)


def prepare(text: str) -> str:
    """Return the answer's part of the text in the form that math-verify reads best.

    A formula without LaTeX delimiters gets them; prose stays unchanged.
    """
    text = answer_place(text).strip().replace("\N{MINUS SIGN}", "-")
    text = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)
    text = _ROOT.sub(r"\\sqrt\1{\2}", text)
    if is_formula(text):
        return f"${text.rstrip('.')}$"
    return re.sub(r"(?<=[A-Za-z]):(?=-?\d)", ": ", text)  # "Answer:72"


def is_formula(text: str) -> bool:
    """Return whether the whole text is one formula without LaTeX delimiters: ``x = \\frac{1}{2}``, not ``It is 72``."""
    if not text or len(text) > _LONGEST_FORMULA or _MARKED.search(text) or _NOT_LATEX.search(text):
        return False
    return not _NUMBER.fullmatch(text) and not _PROSE.search(_FUNCTION.sub("", _COMMAND.sub(" ", text)))


def same_text(completion: str, answer: str) -> bool:
    """Return whether completion and right answer are the same text, ignoring case. This also works for words."""
    return bool(answer.strip()) and answer_place(completion).strip().casefold() == answer.strip().casefold()


def is_number(value: Any) -> bool:
    """Return whether the value is a plain number, such as 19 or 3/4."""
    return bool(getattr(value, "is_Rational", False) or getattr(value, "is_Float", False))


def is_undone(value: Any) -> bool:
    """Return whether the value is an unevaluated sum or product of plain numbers, such as ``12 + 7``."""
    while getattr(value, "is_Relational", False):
        value = value.rhs
    sum_or_product = getattr(value, "is_Add", False) or getattr(value, "is_Mul", False)
    return bool(sum_or_product) and all(is_number(part) for part in value.args)


def _texts_first(pair: tuple[Any, Any]) -> bool:
    """Sort key that puts pairs of strings first, because comparing them is cheap and cannot raise."""
    return not all(isinstance(item, str) for item in pair)
