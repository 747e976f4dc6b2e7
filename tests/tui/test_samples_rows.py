"""Samples as rows: columns, order, filters, the words in which two texts differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aapo_desk.store import Sample
from aapo_desk.tui.difference import compare
from aapo_desk.tui.sample_filters import FILTERS, FilterError, typed_filter
from aapo_desk.tui.sample_rows import Pair, best, columns, ordered, pairs, worst
from tests.tui import fixed_run

BLANK = replace(fixed_run.step_record(1).samples[0], completion="", prompt="", truncated=False)


def policy(row: int, **fields: object) -> Sample:
    return replace(BLANK, row=row, is_reference=False, **fields)  # type: ignore[arg-type]


def rows(items: list[Pair]) -> list[int]:
    return [pair.some.row for pair in items]


PAIRS = pairs(
    [
        policy(
            0, reward=0.5, advantage=0.0, margin=0.0, tokens=9, rewards={"math": 0.5, "form": 1.0}, completion="One"
        ),
        policy(1, reward=1.0, advantage=0.3, margin=0.28, tokens=7, rewards={"math": 1.0, "form": 0.0}, truncated=True),
        policy(2, reward=None, advantage=None, margin=None, tokens=3, rewards={"math": None, "form": None}),
        policy(3, reward=1.0, advantage=0.9, margin=-0.2, tokens=7, rewards={"math": 1.0, "form": 1.0}, prompt="one?"),
        policy(4, reward=None, advantage=None, margin=0.0, tokens=1, rewards={"math": None, "form": 0.0}),
        replace(BLANK, row=5, is_reference=True, reward=0.2, rewards={"math": 0.2, "form": 0.0}),
    ]
)


def kept(name: str) -> list[int]:
    return rows([pair for pair in PAIRS if FILTERS[name](pair)])


def typed(text: str) -> list[int]:
    test = typed_filter(text, columns(PAIRS))
    return rows([pair for pair in PAIRS if test(pair)])


@pytest.mark.parametrize(
    ("key", "descending", "order"),
    [
        ("row", True, [5, 4, 3, 2, 1, 0]),
        ("reward", True, [1, 3, 0, 2, 4, 5]),
        ("reward", False, [0, 1, 3, 2, 4, 5]),
        ("tokens", False, [4, 2, 1, 3, 0, 5]),
        ("form", True, [0, 3, 1, 4, 2, 5]),
        ("reference", True, [5, 0, 1, 2, 3, 4]),
    ],
)
def test_rows_are_ordered_by_a_column_with_missing_values_last(key: str, descending: bool, order: list[int]) -> None:
    column = next(column for column in columns(PAIRS) if column.key == key)
    assert rows(ordered(PAIRS, column, descending)) == order


def test_the_best_has_the_highest_reward_then_the_highest_advantage_and_the_worst_the_lowest() -> None:
    top, bottom = best(PAIRS), worst(PAIRS)
    assert (top and top.some.row, bottom and bottom.some.row) == (3, 0)
    assert best([pair for pair in PAIRS if pair.some.row in (2, 4, 5)]) is None


def test_a_reward_function_with_a_columns_name_keeps_a_column_of_its_own() -> None:
    made = columns(pairs([policy(0, rewards={"reward": 0.25, "math": 0.5})]))
    assert [column.key for column in made][-2:] == ["reward/reward", "math"]


def test_one_reward_function_needs_no_column() -> None:
    assert columns(pairs([policy(0, rewards={"math": 0.5})]))[-1].key == "truncated"


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("all rows", [0, 1, 2, 3, 4, 5]),
        ("cut off", [1]),
        ("unscorable", [2, 4]),
        ("advantage zero", [0]),
        ("advantage not zero", [1, 3]),
        ("better than the reference", [1]),
        ("worse than the reference", [3]),
    ],
)
def test_filters_keep_what_their_name_says(name: str, left: list[int]) -> None:
    assert kept(name) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("", [0, 1, 2, 3, 4, 5]),
        ("reward>=0.5", [0, 1, 3]),
        ("reward>0.5 form=1", [3]),
        ("tokens<9 truncated", [1]),
        ("advantage!=0", [1, 3]),
        ("one", [0, 3]),
        ("unscorable one", []),
    ],
)
def test_a_typed_filter_keeps_what_passes_all_its_terms(text: str, left: list[int]) -> None:
    assert typed(text) == left


@pytest.mark.parametrize(
    ("text", "why"),
    [("rewrd>1", "unknown column rewrd; use one of row, reward"), ("tokens<few", "tokens< needs a number, not few")],
)
def test_a_typed_filter_that_cannot_be_read_says_why(text: str, why: str) -> None:
    with pytest.raises(FilterError, match=why):
        typed_filter(text, columns(PAIRS))


def marked(left: str, right: str) -> tuple[list[str], list[str]]:
    difference = compare(left, right)
    return [left[a:b] for a, b in difference.left], [right[a:b] for a, b in difference.right]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("the sum is 12", "the sum is 12", ([], [])),
        ("the sum is 12", "the sum is  13 .", (["12"], ["13 ."])),
        ("we add 3 and 4", "add 3 and 4 now", (["we"], ["now"])),
        ("漢字二", "漢字三", (["二"], ["三"])),
        ("", "word", ([], ["word"])),
    ],
)
def test_what_only_one_text_has_is_told_word_by_word(
    left: str, right: str, expected: tuple[list[str], list[str]]
) -> None:
    assert marked(left, right) == expected


def test_nothing_is_told_of_texts_that_have_nothing_in_common_or_are_too_long() -> None:
    assert not compare("a b c d e f g", "h i j k l m n").told
    assert compare("a " * 20_000, "b " * 20_000).shared is None
