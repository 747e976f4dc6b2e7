"""Sums of whole numbers as text, by a small grammar of their own: what a model wrote is never run.

    expression = term { ("+" | "-") term }
    term       = factor { ("*" | "/") factor }
    factor     = "-" factor | "(" expression ")" | digits

Digits are 0 to 9. Other signs that people and LaTeX write for the four are understood: × · ÷ − and the like, \\times,
\\cdot, \\div. Too long, too deep or too many digits is no expression.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 500
"""Characters of an expression."""
DEEPEST = 50
"""Brackets and signs inside each other."""
MOST_DIGITS = 20
"""Digits of a number."""

_TOKEN = re.compile(r"[0-9]+|[-+*/()]")
_SIGNS = {
    **dict.fromkeys(("×", "·", "⋅", "∗", "\\times", "\\cdot"), "*"),
    **dict.fromkeys(("÷", "∕", "\\div"), "/"),
    **dict.fromkeys(("−", "–"), "-"),
    **dict.fromkeys(("\\left(", "\\bigl("), "("),
    **dict.fromkeys(("\\right)", "\\bigr)"), ")"),
}
_WRITTEN = re.compile("|".join(map(re.escape, _SIGNS)))
_NEGATED = "negated"


@dataclass(frozen=True)
class Expression:
    """An expression in postfix order: numbers, and signs after the two that they join (``negated``: after its one)."""

    postfix: tuple[int | str, ...]

    @property
    def numbers(self) -> list[int]:
        """The numbers as they stand there, from left to right."""
        return [item for item in self.postfix if isinstance(item, int)]

    @property
    def signs(self) -> set[str]:
        """The signs between numbers."""
        return {item for item in self.postfix if isinstance(item, str) and item != _NEGATED}

    @property
    def value(self) -> Fraction | None:
        """What it comes to, exactly; None where it divides by zero."""
        stack: list[Fraction] = []
        for item in self.postfix:
            if isinstance(item, int):
                stack.append(Fraction(item))
            elif item == _NEGATED:
                stack.append(-stack.pop())
            else:
                right, left = stack.pop(), stack.pop()
                if item == "/" and not right:
                    return None
                stack.append(_OPERATIONS[item](left, right))
        return stack[0]


_OPERATIONS = {"+": Fraction.__add__, "-": Fraction.__sub__, "*": Fraction.__mul__, "/": Fraction.__truediv__}


def parse(text: str) -> Expression | None:
    """The expression that the whole text is, or None where it is none."""
    if len(text) > LONGEST:
        return None
    text = _WRITTEN.sub(lambda written: _SIGNS[written[0]], text)
    tokens = _TOKEN.findall(text)
    if not tokens or "".join(tokens) != "".join(text.split()) or any(len(token) > MOST_DIGITS for token in tokens):
        return None
    parser = _Parser(tokens)
    try:
        parser.expression(0)
    except _NoExpression:
        return None
    return Expression(tuple(parser.postfix)) if parser.at == len(tokens) else None


class _NoExpression(Exception):
    """The tokens do not follow the grammar."""


class _Parser:
    """Recursive descent over the tokens, a method a rule; ``postfix`` grows as they are read."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.postfix: list[int | str] = []

    def expression(self, depth: int) -> None:
        self.joined(("+", "-"), self.term, depth)

    def term(self, depth: int) -> None:
        self.joined(("*", "/"), self.factor, depth)

    def joined(self, signs: tuple[str, ...], part: Callable[[int], None], depth: int) -> None:
        part(depth)
        while (sign := self.next()) in signs:
            self.at += 1
            part(depth)
            self.postfix.append(sign)

    def factor(self, depth: int) -> None:
        token = self.next()
        self.at += 1
        if depth > DEEPEST:
            raise _NoExpression
        if token == "-":
            self.factor(depth + 1)
            self.postfix.append(_NEGATED)
        elif token == "(":
            self.expression(depth + 1)
            if self.next() != ")":
                raise _NoExpression
            self.at += 1
        elif token.isdigit():
            self.postfix.append(int(token))
        else:
            raise _NoExpression

    def next(self) -> str:
        """The token that comes, which is not taken; empty after the last."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""
