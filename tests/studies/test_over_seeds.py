"""Intervals that hold for other seeds and other problems."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from aapo_desk.evaluation import paired_difference, proportion
from aapo_desk.studies.over_seeds import Scores, accuracy, difference, student


def nested(means: list[float], problems: int = 100) -> list[Scores]:
    """Seeds with problems of their own, so many of which are right."""
    return [
        {f"{seed}-{number}": float(number < mean * problems) for number in range(problems)}
        for seed, mean in enumerate(means)
    ]


def test_seeds_with_problems_of_their_own_give_students_interval_of_their_means() -> None:
    means = [0.2, 0.5, 0.8]
    found = accuracy(nested(means))
    half = 4.303 * statistics.stdev(means) / math.sqrt(3)
    assert found.mean == pytest.approx(0.5)
    assert (found.low, found.high) == (0.0, 1.0)  # wider than all there is
    assert half > 0.5
    close = accuracy(nested([0.48, 0.52, 0.62]))
    half = 4.303 * statistics.stdev([0.48, 0.52, 0.62]) / math.sqrt(3)
    assert close.high - close.mean == pytest.approx(half, rel=0.02)  # problems add next to nothing


def test_seeds_that_agree_still_have_the_doubt_of_their_problems() -> None:
    found = accuracy(nested([0.5, 0.5, 0.5]))
    alone = proportion([1.0] * 150 + [0.0] * 150)
    assert found.low == pytest.approx(alone.low)
    assert found.high == pytest.approx(alone.high)


def test_problems_that_all_seeds_share_count_once() -> None:
    shared: Scores = {str(number): float(number < 25) for number in range(50)}
    found = accuracy([shared, shared, shared])
    alone = proportion(list(shared.values()))
    assert found.high - found.low >= alone.high - alone.low
    assert found.high - found.low < 1.1 * (alone.high - alone.low)


def test_one_seed_is_the_paired_interval_of_its_problems() -> None:
    before: Scores = {"a": 0.0, "b": 0.0, "c": 1.0, "d": 0.0}
    after: Scores = {"d": 1.0, "c": 1.0, "b": 0.0, "x": 1.0}
    found = difference([before], [after])
    assert found is not None
    estimate, pairs = found
    alone = paired_difference([0.0, 1.0, 0.0], [0.0, 1.0, 1.0])
    assert pairs == 3
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((alone.mean, alone.low, alone.high))


def test_without_a_pair_there_is_no_difference_to_tell() -> None:
    assert difference([], []) is None
    assert difference([{"a": 1.0}], [{"b": 1.0}]) is None


def test_a_seed_that_pulls_the_other_way_makes_zero_possible() -> None:
    zero: list[Scores] = [{str(number): 0.0 for number in range(100)}] * 3

    def found(*gains: float) -> bool:
        after: list[Scores] = [{str(n): float(n < gain * 100) for n in range(100)} for gain in gains]
        result = difference(zero, after)
        assert result
        return result[0].low <= 0.0

    assert not found(0.30, 0.32, 0.28)
    assert found(0.0, 0.30, 0.60)


@pytest.mark.parametrize("shared", [False, True])
def test_of_many_studies_without_a_difference_about_one_in_twenty_sees_one(shared: bool) -> None:
    chance = random.Random(7)
    misses = 0
    for _ in range(STUDIES):
        problems = [chance.gauss(0, 0.5) for _ in range(30)]
        before, after = [], []
        for seed in range(3):
            own = problems if shared else [chance.gauss(0, 0.5) for _ in range(30)]
            pull = chance.gauss(0, 0.1)
            keys = [str(n) if shared else f"{seed}-{n}" for n in range(30)]
            before.append(dict.fromkeys(keys, 0.0))
            after.append({key: value + pull + chance.gauss(0, 0.3) for key, value in zip(keys, own, strict=True)})
        result = difference(before, after)
        assert result
        misses += not result[0].low <= 0.0 <= result[0].high
    assert misses / STUDIES < 0.07


STUDIES = 400


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.706), (2, 4.303), (10, 2.228), (11, 2.201), (20, 2.086), (99, 1.984)]
)
def test_students_quantiles(freedom: int, t: float) -> None:
    assert student(freedom) == pytest.approx(t, abs=1e-3)
