"""Intervals against figures from the literature and against what they must never do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aapo_desk.evaluation import (
    mean_of_means,
    paired_difference,
    proportion,
    unpaired_difference,
)


def test_wilson_gives_its_published_figures() -> None:
    """Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29."""
    for hits, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        estimate = proportion([1.0] * hits + [0.0] * (n - hits))
        assert [estimate.low, estimate.high] == pytest.approx([low, high], abs=5e-5)


def test_a_paired_difference_of_nothing_still_has_an_interval() -> None:
    estimate = paired_difference([1.0] * 50, [1.0] * 50)
    assert estimate.mean == 0
    assert estimate.low < 0 < estimate.high


def test_a_clear_gain_lies_above_zero_and_a_small_one_does_not() -> None:
    base = [0.0] * 70 + [1.0] * 30
    assert paired_difference(base, [1.0] * 30 + base[30:]).low > 0.15
    assert paired_difference(base, [1.0] * 3 + base[3:]).low < 0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=60))
def test_intervals_hold_their_mean_and_stay_in_range(pairs: list[tuple[float, float]]) -> None:
    before, after = [a for a, _ in pairs], [b for _, b in pairs]
    one, difference = proportion(after), paired_difference(before, after)
    assert 0 <= one.low <= one.mean <= one.high <= 1
    assert -1 <= difference.low <= difference.high <= 1


def test_no_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="no scores"):
        proportion([])
    with pytest.raises(ValueError, match="no pairs"):
        paired_difference([], [])


def test_an_unpaired_difference_is_newcombes() -> None:
    # The first example of Newcombe (1998): 56 of 70 against 48 of 80.
    found = unpaired_difference(proportion([1.0] * 48 + [0.0] * 32), proportion([1.0] * 56 + [0.0] * 14))
    assert (found.mean, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60))
def test_with_one_sample_a_problem_a_mean_of_means_is_a_proportion(scores: list[float]) -> None:
    one, means = proportion(scores), mean_of_means([[score] for score in scores])
    assert (means.mean, means.low, means.high) == pytest.approx((one.mean, one.low, one.high))


def test_samples_that_only_repeat_each_other_tell_no_more_than_one() -> None:
    once = mean_of_means([[1.0]] * 30 + [[0.0]] * 70)
    eightfold = mean_of_means([[1.0] * 8] * 30 + [[0.0] * 8] * 70)
    assert (eightfold.low, eightfold.high) == pytest.approx((once.low, once.high), abs=1e-3)


def test_samples_that_differ_inside_a_problem_tell_as_much_as_other_problems() -> None:
    alike = mean_of_means([[1.0, 0.0, 0.0, 1.0]] * 50)
    assert (alike.low, alike.high) == pytest.approx(
        (proportion([1.0, 0.0] * 100).low, proportion([1.0, 0.0] * 100).high)
    )


def test_a_mean_of_means_is_over_problems_not_over_samples() -> None:
    assert mean_of_means([[1.0], [0.0, 0.0, 0.0]]).mean == 0.5


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=5), min_size=1, max_size=40))
def test_a_mean_of_means_holds_its_mean_and_stays_in_range(scores: list[list[float]]) -> None:
    found = mean_of_means(scores)
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_a_paired_difference_of_whole_scores_is_bonett_and_prices() -> None:
    """b = 12 lost and c = 9 gained of n = 50: (c - b) / (n + 2) and its Wald interval with one of each added."""
    found = paired_difference([1.0] * 12 + [0.0] * 38, [0.0] * 12 + [1.0] * 9 + [0.0] * 29)
    centre, spread = -3 / 52, (23 / 52 - (3 / 52) ** 2) / 52
    assert (found.low, found.high) == pytest.approx((centre - 1.959964 * spread**0.5, centre + 1.959964 * spread**0.5))


def test_small_differences_between_mean_scores_have_a_narrower_interval_than_whole_ones() -> None:
    small = paired_difference([0.5] * 100, [0.6] * 50 + [0.4] * 50)
    whole = paired_difference([0.0] * 50 + [1.0] * 50, [1.0] * 50 + [0.0] * 50)
    assert small.high - small.low < 0.3 * (whole.high - whole.low)
