"""Filters for pairs of completions: a few with names, and one that the user types."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence

from aapo_desk.tui.sample_rows import Column, Pair, unscorable

Test = Callable[[Pair], bool]


def _advantage(test: Callable[[float], bool]) -> Test:
    def tested(pair: Pair) -> bool:
        value = pair.policy.advantage if pair.policy else None
        return value is not None and test(value)

    return tested


def _margin(test: Callable[[float], bool]) -> Test:
    def tested(pair: Pair) -> bool:
        value = pair.policy.margin if pair.policy else None
        return value is not None and test(value)

    return tested


def truncated(pair: Pair) -> bool:
    """Return whether the policy's completion was cut off at the token limit."""
    return pair.policy is not None and pair.policy.truncated


FILTERS: Mapping[str, Test] = {
    "all rows": lambda pair: True,
    "cut off": truncated,
    "unscorable": unscorable,
    "advantage zero": _advantage(lambda value: value == 0),
    "advantage not zero": _advantage(lambda value: value != 0),
    "better than the reference": _margin(lambda value: value > 0),
    "worse than the reference": _margin(lambda value: value < 0),
}

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
COMPARISON = re.compile(r"([\w/.-]+)(<=|>=|!=|<|>|=)(.*)", re.DOTALL)
WORDS: Mapping[str, Test] = {"truncated": truncated, "unscorable": unscorable}
FILTER_HELP = "reward>0.5 tokens<20 truncated word"


class FilterError(ValueError):
    """A typed filter could not be parsed; the message says why."""


def typed_filter(text: str, columns: Sequence[Column]) -> Test:
    """Parse a filter such as ``reward>0.5 tokens<20 truncated word``; a pair must satisfy every term.

    A plain word must occur in the prompt or in a completion. Raises FilterError if a term cannot be parsed.
    """
    tests = [_test(term, {column.key: column for column in columns}) for term in text.split()]
    return lambda pair: all(test(pair) for test in tests)


def _test(term: str, columns: Mapping[str, Column]) -> Test:
    comparison = COMPARISON.fullmatch(term)
    if comparison is None:
        return WORDS.get(term.lower()) or (lambda pair: holds(pair, term))
    key, sign, given = comparison.groups()
    column = columns.get(key)
    if column is None or key == "prompt":
        raise FilterError(f"unknown column {key}; use one of {', '.join(key for key in columns if key != 'prompt')}")
    try:
        limit = float(given)
    except ValueError:
        raise FilterError(f"{key}{sign} needs a number, not {given or 'nothing'}") from None
    compare = OPERATORS[sign]

    def tested(pair: Pair) -> bool:
        value = column.value(pair)
        return isinstance(value, int | float) and compare(value, limit)

    return tested


def holds(pair: Pair, text: str) -> bool:
    """Return whether the prompt or a completion contains ``text``, ignoring case."""
    wanted = text.lower()
    sides = [sample for sample in (pair.policy, pair.reference) if sample is not None]
    return any(wanted in text.lower() for sample in sides for text in (sample.prompt, sample.completion))
