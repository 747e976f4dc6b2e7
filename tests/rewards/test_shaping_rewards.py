"""The rewards that shape: cosine, repetition, tags, overlong, and numeric with its tolerance. Values by hand."""

from __future__ import annotations

from typing import Any

import pytest

from aapo_desk.config import RewardConfig
from aapo_desk.rewards import Completion, RewardPool, bounds, cosine, numeric, overlong, repetition, tags

RIGHT, WRONG = "The answer is 7.", "The answer is 8."


def completion(text: str = "", tokens: int = 10, truncated: bool = False, answer: str = "7") -> Completion:
    return Completion(text, problem="", answer=answer, tokens=tokens, max_tokens=100, truncated=truncated)


@pytest.mark.parametrize(
    ("options", "text", "tokens", "expected"),
    [
        ({}, RIGHT, 0, 1.0),
        ({}, RIGHT, 50, 0.75),
        ({}, RIGHT, 100, 0.5),
        ({}, RIGHT, 25, 0.5 + 0.25 * (1 + 2**-0.5)),
        ({}, WRONG, 0, 0.0),
        ({}, WRONG, 50, -0.25),
        ({}, WRONG, 100, -0.5),
        ({"longest": 50}, RIGHT, 25, 0.75),
        ({"longest": 50}, RIGHT, 90, 0.5),
        # The paper's own values: a short wrong answer is the worst.
        ({"right_short": 2, "right_long": 1, "wrong_short": -10, "wrong_long": 0}, RIGHT, 50, 1.5),
        ({"right_short": 2, "right_long": 1, "wrong_short": -10, "wrong_long": 0}, WRONG, 0, -10.0),
        ({"right_short": 2, "right_long": 1, "wrong_short": -10, "wrong_long": 0}, WRONG, 50, -5.0),
    ],
)
def test_cosine_goes_from_the_short_value_to_the_long_one(
    options: dict[str, Any], text: str, tokens: int, expected: float
) -> None:
    assert cosine.build(options)(completion(text, tokens)) == pytest.approx(expected)


def test_cosine_of_a_completion_that_was_cut_off_is_the_long_value_or_what_is_set_for_it() -> None:
    cut = completion(RIGHT, tokens=100, truncated=True)
    assert cosine.build({})(cut) == pytest.approx(0.5)
    assert cosine.build({"exceeded": -1})(cut) == -1.0


def test_cosine_takes_work_left_undone_as_math_does() -> None:
    assert cosine.build({"worked_out": True})(completion("3 + 4", 0)) == 0.0
    assert cosine.build({})(completion("3 + 4", 0)) == 1.0


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({}, "", 0.0),
        ({}, "no no", 0.0),
        ({}, "one two three four", 0.0),
        ({}, "a b c a b c", -(1 - 3 / 4)),  # abc bca cab abc
        ({}, "no no no no no", -(1 - 1 / 3)),
        ({}, "No no NO no no", -(1 - 1 / 3)),
        ({"words": 1}, "a b a b", -0.5),
        ({"words": 2, "penalty": 0.1}, "a b a b", -0.1 * (1 - 2 / 3)),
    ],
)
def test_repetition_costs_the_share_of_word_groups_that_were_there_before(
    options: dict[str, Any], text: str, expected: float
) -> None:
    assert repetition.build(options)(completion(text)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({}, "<think>a</think><answer>7</answer>", 1.0),
        ({}, "<think>\na\n</think>\n<answer>\n7\n</answer>", 1.0),
        ({}, "a</think><answer>7</answer>", 0.75),
        ({}, "<think>a</think><think>b</think><answer>7</answer>", 0.5),
        ({}, "7", 0.0),
        ({"names": ["reason"]}, "<reason>a", 0.5),
    ],
)
def test_tags_gives_the_share_of_the_tags_that_stand_there_once(
    options: dict[str, Any], text: str, expected: float
) -> None:
    assert tags.build(options)(completion(text)) == expected


@pytest.mark.parametrize(
    ("options", "tokens", "expected"),
    [
        ({}, 0, 0.0),
        ({}, 80, 0.0),
        ({}, 90, -0.5),
        ({}, 100, -1.0),
        ({"margin": 50}, 75, -0.5),
        ({"longest": 40, "margin": 20}, 20, 0.0),
        ({"longest": 40, "margin": 20}, 25, -0.25),
        ({"longest": 40, "margin": 20}, 70, -1.0),
        ({"longest": 40, "margin": 40}, 10, -0.25),
    ],
)
def test_overlong_falls_in_the_margin_before_the_longest(options: dict[str, Any], tokens: int, expected: float) -> None:
    assert overlong.build(options)(completion(tokens=tokens)) == pytest.approx(expected)


def test_overlong_is_lowest_for_a_completion_that_was_cut_off() -> None:
    assert overlong.build({"longest": 500})(completion(tokens=100, truncated=True)) == -1.0


@pytest.mark.parametrize(
    ("options", "text", "answer", "expected"),
    [
        ({}, "about 100.9 km", "100", 1.0),
        ({}, "about 101.1 km", "100", 0.0),
        ({}, "It is −99.5", "-100", 1.0),
        ({"relative": 0}, "7.0", "7", 1.0),
        ({"relative": 0}, "7.001", "7", 0.0),
        ({"relative": 0, "absolute": 0.01}, "7.001", "7", 1.0),
        ({"absolute": 0.5}, "0.4", "0", 1.0),
        ({}, "0.4", "0", 0.0),
        ({}, "first 3, then 5, so 1,234.5", "1234.5", 1.0),
        ({}, r"\boxed{7}, as 3 + 4 is 7 and not 12", "7", 1.0),
        ({}, r"\boxed{3} no, \boxed{7} and 9", "7", 1.0),
        ({}, "<think>8</think><answer>7</answer> in 5 lines", "7", 1.0),
        ({}, "<think>so 7</think> It is 8", "7", 0.0),
        ({}, "3/4", "0.75", 1.0),
        ({}, "75%", "0.75", 1.0),
        ({}, r"75 \%", "75%", 1.0),
        ({}, "1e3", "1000", 1.0),
        ({}, "6.02E+23", "6.02e23", 1.0),
        ({}, ".5", "1/2", 1.0),
        ({}, "x2 is 7", "7", 1.0),
        ({}, "12-7", "7", 1.0),
        ({}, "seven", "7", 0.0),
        ({}, "", "7", 0.0),
        ({}, "1/0", "7", 0.0),
        ({}, "9" * 5000, "7", 0.0),
        ({}, "1e999", "7", 0.0),
    ],
)
def test_numeric_is_one_within_the_tolerance(options: dict[str, Any], text: str, answer: str, expected: float) -> None:
    assert numeric.build(options)(completion(text, answer=answer)) == expected


def test_numeric_of_an_answer_that_is_no_number_is_unscorable_and_says_so() -> None:
    rewards = [RewardConfig(name="numeric"), RewardConfig(name="tags", weight=0.5)]
    with RewardPool(rewards, workers=1) as pool:
        bad, good = pool.score([completion("7", answer="blue"), completion("<think>7", answer="7")])
    assert bad.total is None
    assert "the right answer is not a number: 'blue'" in (bad.error or "")
    assert good.total == pytest.approx(1.125)


def test_long_and_hostile_texts_are_scored_in_time() -> None:
    texts = ["1,111" * 20_000, "<think>" * 30_000, "no " * 50_000, "-" * 100_000, "1/" * 50_000, r"\boxed{" * 20_000]
    names = ("numeric", "tags", "repetition", "overlong", "length")
    with RewardPool([RewardConfig(name=name) for name in names], workers=1) as pool:
        assert [score.error for score in pool.score([completion(text) for text in texts])] == [None] * len(texts)


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([{"name": "math"}], (0.0, 1.0)),
        ([{"name": "math"}, {"name": "length", "weight": -0.5}], (-0.5, 1.0)),
        ([{"name": "cosine", "weight": 2}], (-1.0, 2.0)),
        ([{"name": "cosine", "options": {"exceeded": -3}}], (-3.0, 1.0)),
        ([{"name": "math"}, {"name": "overlong"}, {"name": "repetition", "options": {"penalty": 0.5}}], (-1.5, 1.0)),
        ([{"name": "mine.py:half", "weight": 0.2}], (0.0, 0.2)),
    ],
)
def test_the_range_of_the_weighted_sum_is_known(rewards: list[dict[str, Any]], expected: tuple[float, float]) -> None:
    assert bounds([RewardConfig(**reward) for reward in rewards]) == pytest.approx(expected)
