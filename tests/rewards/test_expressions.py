"""The grammar of expressions: what it reads, what it refuses, and that nothing makes it slow or deep."""

from __future__ import annotations

import ast
import operator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aapo_desk.rewards.expressions import DEEPEST, LONGEST, MOST_DIGITS, parse


@pytest.mark.parametrize(
    ("text", "value", "numbers"),
    [
        ("7", 7, [7]),
        ("44 + (19 + 35)", 98, [44, 19, 35]),
        ("1+2*3", 7, [1, 2, 3]),
        ("(1 + 2) * 3", 9, [1, 2, 3]),
        ("10 - 3 - 2", 5, [10, 3, 2]),
        ("10 - (3 - 2)", 9, [10, 3, 2]),
        ("24 / 4 / 2", 3, [24, 4, 2]),
        ("7 / 3 * 3", 7, [7, 3, 3]),
        ("1 / 3", Fraction(1, 3), [1, 3]),
        ("-5 + 8", 3, [5, 8]),
        ("8 - -5", 13, [8, 5]),
        ("-(2 - 5) * 2", 6, [2, 5, 2]),
        ("2 * --3", 6, [2, 3]),
        ("6 × 7", 42, [6, 7]),
        ("6·7 ⋅ 1 ∗ 1", 42, [6, 7, 1, 1]),
        ("12 ÷ 4", 3, [12, 4]),
        ("12 − 4 – 1", 7, [12, 4, 1]),
        ("6 \\times 7 - 8 \\div 4", 40, [6, 7, 8, 4]),
        ("2 \\cdot \\left(3 + 4\\right)", 14, [2, 3, 4]),
        ("\n ( 1\t+ 2 )\n", 3, [1, 2]),
        ("007", 7, [7]),
        ("(((5)))", 5, [5]),
    ],
)
def test_an_expression_has_its_exact_value_and_its_numbers(text: str, value: Fraction, numbers: list[int]) -> None:
    expression = parse(text)
    assert expression is not None
    assert expression.value == value
    assert expression.numbers == numbers


@pytest.mark.parametrize("text", ["1 / 0", "1 / (2 - 2)", "(3 - 3) / (1 - 1)", "0 / 0 * 0"])
def test_a_division_by_zero_has_no_value(text: str) -> None:
    expression = parse(text)
    assert expression is not None
    assert expression.value is None


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "()",
            "(",
            ")",
            "1 +",
            "+ 1",
            "* 2",
            "1 2",
            "4 4 + 1",
            "(1",
            "1)",
            "(1))",
            "2(3)",
            "(2)(3)",
            "1 + * 2",
        ),
        *(
            "2 ** 3",
            "7 // 2",
            "2 ^ 3",
            "2!",
            "5 % 3",
            "1.5",
            "1,000",
            "1e3",
            "0x10",
            "1_000",
            "5j",
            "1 = 1",
            "a",
            "1 + x",
        ),
        *("__import__('os').system('id')", "(lambda: 1)()", "1; 2", "1 if 1 else 2", "\\frac{1}{2}", "max(1, 2)"),
        *("٣ + ٤", "３ + ４", "² + 1", "½", "Ⅷ", "1 \x00+ 2", "1 +\u200b 2", "\u202e1 + 2", "\ud800", "1\u20e3"),
    ],
)
def test_what_does_not_follow_the_grammar_is_no_expression(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("largest", "too_large"),
    [
        ("1+" * (LONGEST // 2 - 1) + "1", "1+" * (LONGEST // 2) + "1"),
        ("(" * DEEPEST + "1" + ")" * DEEPEST, "(" * (DEEPEST + 1) + "1" + ")" * (DEEPEST + 1)),
        ("-" * DEEPEST + "1", "-" * (DEEPEST + 1) + "1"),
        ("9" * MOST_DIGITS, "9" * (MOST_DIGITS + 1)),
    ],
)
def test_length_depth_and_digits_have_their_limits(largest: str, too_large: str) -> None:
    assert parse(largest) is not None
    assert parse(too_large) is None


@pytest.mark.parametrize("text", ["(" * 10**6, "-" * 10**6, "9" * 10**6, "1+" * 10**6, "(" * 249 + ")" * 249])
@pytest.mark.timeout(20)
def test_no_text_is_slow_or_too_deep(text: str) -> None:
    assert parse(text) is None


numbers = st.integers(0, 99).map(str)
expressions = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda parts: f"({' '.join(parts)})"),
        inner.map(lambda text: f"(-{text})"),
    ),
    max_leaves=12,
)


def python_value(text: str) -> Fraction | None:
    """The same text worked out by Python, over its syntax tree."""
    signs = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=int(number)):
                return Fraction(number)
            case ast.UnaryOp(operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=op, right=right):
                result: Fraction = signs[type(op)](value(left), value(right))
                return result
        raise AssertionError(node)

    try:
        return value(ast.parse(text, mode="eval").body)
    except ZeroDivisionError:
        return None


@given(expressions)
def test_values_are_those_of_pythons_own_arithmetic(text: str) -> None:
    expression = parse(text)
    assert expression is not None
    assert expression.value == python_value(text)
