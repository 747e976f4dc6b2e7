"""A parser for arithmetic expressions of whole numbers. The text comes from a model, so it is never passed to ``eval``.

    expression = term { ("+" | "-") term }
    term       = factor { ("*" | "/") factor }
    factor     = "-" factor | "(" expression ")" | digits

Digits are 0 to 9. Other ways to write the four signs are understood: × · ÷ − and similar, and LaTeX's \\times, \\cdot,
\\div. A text that exceeds the limits on length, nesting or digits is not an expression.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 500
"""Maximum number of characters in an expression."""
DEEPEST = 50
"""Maximum nesting of brackets and minus signs."""
MOST_DIGITS = 20
"""Maximum number of digits in a number."""

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
    """An expression in postfix order: a sign follows its two operands, ``negated`` follows its one operand."""

    postfix: tuple[int | str, ...]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the expression, from left to right."""
        return [item for item in self.postfix if isinstance(item, int)]

    @property
    def signs(self) -> set[str]:
        """The binary signs of the expression."""
        return {item for item in self.postfix if isinstance(item, str) and item != _NEGATED}

    @property
    def value(self) -> Fraction | None:
        """The exact value; None if the expression divides by zero."""
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
    """Parse the whole text as one expression. Returns None if it is not an expression."""
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
    """Raised if the tokens do not follow the grammar."""


class _Parser:
    """A recursive-descent parser with one method per grammar rule. ``postfix`` grows as the tokens are read."""

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
        """Return the next token without consuming it, or "" after the last."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""
