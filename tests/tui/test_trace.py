from __future__ import annotations

import math
from array import array

import pytest

from aapo_desk.tui.trace import MOST, Trace, smoothed_at


def traced(values: list[float], first: int = 1) -> Trace:
    trace = Trace()
    trace.update(range(first, first + len(values)), array("d", values))
    return trace


def test_a_short_run_keeps_each_step() -> None:
    trace = traced([0.5, math.nan, 0.25])
    assert list(trace.steps) == [1, 2, 3]
    assert trace.means[0] == 0.5
    assert math.isnan(trace.means[1])
    assert trace.spread() == (trace.steps, trace.means)


def test_a_long_run_is_kept_in_few_buckets_with_their_ranges() -> None:
    values = [float(step % 7) for step in range(100_000)]
    trace = traced(values)
    assert MOST / 2 <= len(trace.steps) <= MOST
    assert (trace.steps[0], trace.steps[-1]) == (1, 100_000)
    assert set(trace.lows) == {0.0}
    assert set(trace.highs[:-1]) == {6.0}
    assert sum(trace.means) / len(trace.means) == pytest.approx(3.0, abs=0.01)
    steps, ends = trace.spread()
    assert (steps[0], steps[1], ends[0], ends[1]) == (1, 1, 0.0, 6.0)


def test_what_comes_step_by_step_is_as_if_it_had_come_at_once() -> None:
    values = array("d", [math.sin(step / 50) for step in range(MOST * 2 + 3)])
    steps = range(1, len(values) + 1)
    piecewise = Trace()
    for count in (1, 2, MOST - 1, MOST, MOST + 1, MOST + 2, MOST * 2, MOST * 2 + 1, MOST * 2 + 3):
        piecewise.update(steps[:count], values[:count])
    at_once = traced(list(values))
    assert piecewise.steps == at_once.steps
    assert piecewise.means == at_once.means
    assert piecewise.highs == at_once.highs


@pytest.mark.parametrize(("first", "count"), [(1, 4), (3, 12), (3, 20)])
def test_a_history_that_was_replaced_is_taken_anew(first: int, count: int) -> None:
    trace = traced([1.0] * 12)
    trace.update(range(first, first + count), [2.0] * count)
    assert list(trace.means) == [2.0] * count


def test_missing_values_do_not_count_and_an_empty_trace_says_so() -> None:
    values = [math.nan, 4.0] * MOST
    trace = traced(values)
    assert trace.size == 2
    assert set(trace.means) == {4.0}
    assert traced([math.nan] * 5).empty
    assert Trace().empty
    assert not trace.empty


def test_the_smooth_line_starts_at_the_first_value_and_is_broken_where_values_are_missing() -> None:
    smooth = traced([1.0, math.nan, 0.0, 0.0]).smooth()
    assert smooth[0] == pytest.approx(1.0)
    assert math.isnan(smooth[1])
    assert 1.0 > smooth[2] > smooth[3] > 0.0


def test_the_number_at_the_cursor_is_the_one_of_the_smooth_line() -> None:
    values = [math.sin(step / 3) for step in range(200)]
    smooth = traced(values).smooth()
    for place in (0, 1, 17, 199):
        assert smoothed_at(values, place) == pytest.approx(smooth[place], abs=1e-3)
    assert smoothed_at([math.nan, math.nan], 1) is None
