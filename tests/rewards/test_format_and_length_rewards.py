"""The ``format`` and ``length`` rewards."""

from __future__ import annotations

from typing import Any

import pytest

from aapo_desk.config import RewardConfig
from aapo_desk.rewards import Completion, RewardPool
from aapo_desk.rewards import format as format_reward
from aapo_desk.rewards import length as length_reward


def completion(text: str = "", tokens: int = 10, truncated: bool = False) -> Completion:
    return Completion(text, problem="", answer="", tokens=tokens, max_tokens=100, truncated=truncated)


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({"pattern": "<answer>.+</answer>"}, "so <answer>7</answer>!", 1.0),
        ({"pattern": "<answer>.+</answer>"}, "<answer>7\n8</answer>", 1.0),
        ({"pattern": "<answer>.+</answer>"}, "answer 7", 0.0),
        ({"pattern": r"-?\d+", "mode": "full"}, "-42", 1.0),
        ({"pattern": r"-?\d+", "mode": "full"}, "it is -42", 0.0),
        ({"pattern": r"-?\d+", "mode": "search"}, "it is -42", 1.0),
        ({"pattern": r"(?i)ANSWER$"}, "the answer", 1.0),
    ],
)
def test_format_is_one_where_the_pattern_matches(options: dict[str, Any], text: str, expected: float) -> None:
    assert format_reward.build(options)(completion(text)) == expected


def test_a_pattern_that_backtracks_for_ever_is_ended_by_the_time_limit() -> None:
    rewards = [RewardConfig(name="length"), RewardConfig(name="format", options={"pattern": "(a+)+$"})]
    with RewardPool(rewards, workers=1, time_limit=1) as pool:
        hung, fine = pool.score([completion("a" * 50 + "b"), completion("aa")])
    assert hung.parts == {"length": 0.9, "format": None}
    assert hung.total is None
    assert hung.error == "format: timed out after 1 s"
    assert fine.total == pytest.approx(1.9)


@pytest.mark.parametrize(
    ("options", "tokens", "expected"),
    [
        ({}, 0, 1.0),
        ({}, 25, 0.75),
        ({}, 100, 0.0),
        ({"target": 20}, 20, 1.0),
        ({"target": 20}, 60, 0.5),
        ({"target": 100}, 100, 1.0),
        ({"target": 500}, 100, 1.0),
    ],
)
def test_length_falls_in_a_straight_line_after_its_target(
    options: dict[str, Any], tokens: int, expected: float
) -> None:
    assert length_reward.build(options)(completion(tokens=tokens)) == pytest.approx(expected)


def test_length_is_zero_for_a_completion_that_was_cut_off() -> None:
    assert length_reward.build({"target": 500})(completion(tokens=100, truncated=True)) == 0.0
