"""Hostile completions through every built-in reward, in the real pool."""

from __future__ import annotations

import os

import pytest

from aapo_desk.config import RewardConfig
from aapo_desk.rewards import Completion, RewardPool
from aapo_desk.rewards.builtin import BUILT_IN
from tests.adversarial import FAMILIES

VERIFYING = ("readable", "math", "cosine")
"""Those that read with math-verify: what reads an answer, then what compares it, then what does both again."""
OPTIONS = {"format": {"pattern": "<answer>.+</answer>"}}
ANSWER = "44 + (19 + 35)"
TIME_LIMIT = 1.0

HOSTILE = [text for family in FAMILIES.values() for text in family]


def rewards(*names: str) -> list[RewardConfig]:
    return [RewardConfig(name=name, options=OPTIONS.get(name, {})) for name in names]


def completions() -> list[Completion]:
    return [Completion(text, "", ANSWER, min(len(text), 100), 100, len(text) > 100) for text in HOSTILE]


def test_there_are_200_of_them_and_all_differ() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 200


def test_rewards_that_read_by_themselves_score_every_one_of_them() -> None:
    own = [name for name in BUILT_IN if name not in (*VERIFYING, "reasoning_gym")]  # it asks a generator
    with RewardPool(rewards(*own), workers=2, time_limit=10) as pool:  # a busy machine must not be their fault
        scores = pool.score(completions())
    assert [(text[:60], score.error) for text, score in zip(HOSTILE, scores, strict=True) if score.error] == []


@pytest.mark.slow
def test_rewards_that_verify_score_them_or_say_why_not_and_the_pool_lives() -> None:
    plain = [Completion(text, "", ANSWER, 5, 100, False) for text in ("It is 98.", "It is 97.")]
    with RewardPool(rewards(*VERIFYING), workers=os.cpu_count() or 1, time_limit=TIME_LIMIT) as pool:
        scores = pool.score(completions())
        right, wrong = pool.score(plain)
    for text, score in zip(HOSTILE, scores, strict=True):
        assert (score.total is None) == (score.error is not None)
        if score.error is not None:
            name, _, why = score.error.partition(": ")
            assert name in VERIFYING, text[:60]
            assert why.startswith(("timed out after 1 s", "raised ", "out of memory")), (text[:60], why)
            assert "SystemExit" not in why, "what a model wrote was run"
    assert (right.parts["math"], wrong.parts["math"]) == (1.0, 0.0)
