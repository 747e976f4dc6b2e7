from __future__ import annotations

import math

import pytest

from aapo_desk.tui.widgets.braille import (
    Frame,
    Series,
    Style,
    columns,
    draw,
    log_labels,
    log_ticks,
    place,
    tick_labels,
    ticks,
)

UNIT = Frame(0.0, 3.0, 0.0, 1.0)


def lines(ys: list[float], width: int = 2, height: int = 1, style: Style = "line", frame: Frame = UNIT) -> list[str]:
    series = Series("a", [float(x) for x in range(len(ys))], ys, style)
    return [row.text for row in draw([series], width, height, frame)]


def test_a_rising_line_takes_one_dot_in_each_row() -> None:
    assert lines([0.0, 1 / 3, 2 / 3, 1.0]) == ["⡠⠊"]


def test_a_falling_line_is_its_mirror_image() -> None:
    assert lines([1.0, 2 / 3, 1 / 3, 0.0]) == ["⠑⢄"]


def test_a_steep_line_has_no_holes() -> None:
    assert lines([0.0, 1.0], width=1, frame=Frame(0, 1, 0, 1)) == ["⡸"]


def test_points_are_not_joined() -> None:
    assert lines([0.0, 1.0, 0.0, 1.0], style="points") == ["⡈⡈"]


def test_dashes_leave_gaps() -> None:
    assert lines([0.0] * 16, width=8, style="dashes", frame=Frame(0, 15, 0, 1)) == ["⣀⣀ ⢀⣀⡀ ⣀"]
    assert lines([0.0] * 16, width=8, frame=Frame(0, 15, 0, 1)) == ["⣀" * 8]


def test_a_dotted_line_is_sparser_than_a_dashed_one() -> None:
    assert lines([0.0] * 12, width=6, style="dots", frame=Frame(0, 11, 0, 1)) == ["⡀⢀ ⡀⢀ "]


def test_one_point_is_one_dot() -> None:
    (row,) = lines([1.0], width=3, frame=Frame(0, 0, 0, 1))
    assert row.count("⠁") == 1
    assert row.strip() == "⠁"


@pytest.mark.parametrize("ys", [[], [math.nan] * 4, [math.nan, math.inf, -math.inf, math.nan]])
def test_nothing_finite_draws_nothing(ys: list[float]) -> None:
    assert lines(ys) == ["  "]


def test_a_missing_value_breaks_the_line() -> None:
    whole = lines([0.0] * 8, width=4, frame=Frame(0, 7, 0, 1))
    broken = lines([0.0, 0.0, 0.0, math.nan, 0.0, 0.0, 0.0, 0.0], width=4, frame=Frame(0, 7, 0, 1))
    assert whole == ["⣀⣀⣀⣀"]
    assert broken == ["⣀⡀⣀⣀"]


def test_a_constant_series_is_a_flat_line_in_its_own_frame() -> None:
    values = ticks(0.4, 0.4, 3)
    rows = lines([0.4] * 4, height=3, frame=Frame(0, 3, values[0], values[-1]))
    assert sum(row.strip() != "" for row in rows) == 1


def test_values_outside_the_frame_go_to_its_edge() -> None:
    assert place(9.0, 8, UNIT) == 0
    assert place(-9.0, 8, UNIT) == 7


def test_thousands_of_points_are_binned_by_column() -> None:
    ys = [float(x % 2) for x in range(10_000)]
    frame = Frame(0, 9_999, 0, 1)
    binned = columns(range(10_000), ys, 20, frame)
    assert sum(len(values or []) for values in binned) == 10_000
    assert lines(ys, width=10, style="points", frame=frame) == ["⣿" * 10]
    assert lines(ys, width=10, height=2, frame=frame) != ["⣿" * 10] * 2


def test_the_later_series_owns_the_cell_and_keeps_the_dots_below() -> None:
    below = Series("below", [0.0, 1.0], [0.0, 0.0], "line")
    above = Series("above", [0.0, 1.0], [1.0, 1.0], "line")
    (row,) = draw([below, above], 1, 1, Frame(0, 1, 0, 1))
    assert (row.text, row.names) == ("⣉", ["above"])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.5, 1.0]),
        (0.03, 0.94, [0.0, 0.5, 1.0]),
        (-0.2, 0.28, [-0.25, 0.0, 0.25, 0.5]),
        (0.0, 0.0, [-0.5, 0.0, 0.5]),
        (5.0, 5.0, [4.5, 5.0, 5.5]),
    ],
)
def test_ticks_are_round_and_hold_the_range(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 3) == pytest.approx(expected)


@pytest.mark.parametrize("low", [-1e9, -3.3, 0.0, 1e-9, 1.0, 12345.6])
@pytest.mark.parametrize("span", [0.0, 1e-6, 0.37, 1.0, 99.0, 1e7])
def test_ticks_hold_any_range(low: float, span: float) -> None:
    values = ticks(low, low + span, 4)
    assert len(values) >= 2
    assert values[0] <= low + abs(low) * 1e-9 + 1e-9
    assert values[-1] >= low + span - abs(low + span) * 1e-9 - 1e-9
    assert len(set(tick_labels(values))) == len(values) or span < abs(low) * 1e-3


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 0.5, 1.0], ["0.0", "0.5", "1.0"]),
        ([0.0, 0.25, 0.5], ["0.00", "0.25", "0.50"]),
        ([0.0, 10.0], ["0", "10"]),
        ([0.0, 2e6], ["0", "2e+06"]),
    ],
)
def test_tick_labels_have_the_decimals_they_need(values: list[float], labels: list[str]) -> None:
    assert tick_labels(values) == labels


@pytest.mark.parametrize(
    ("low", "high", "count", "labels"),
    [
        (1e-5, 1e-1, 6, ["1e-05", "0.0001", "0.001", "0.01", "0.1"]),
        (1e-5, 1e-1, 3, ["1e-05", "0.001", "0.1"]),
        (0.3, 0.8, 4, ["0.2", "0.5", "1"]),
        (0.2, 0.2, 4, ["0.2", "0.5"]),
        (0.3, 0.8, 2, ["0.1", "1"]),
        (1e-12, 1e12, 4, ["1e-12", "0.0001", "1e+04", "1e+12"]),
    ],
)
def test_a_logarithmic_axis_has_round_numbers_around_its_range(
    low: float, high: float, count: int, labels: list[str]
) -> None:
    marks = log_ticks(math.log10(low), math.log10(high), count)
    assert log_labels(marks) == labels
    assert marks[0] <= math.log10(low) + 1e-9
    assert marks[-1] >= math.log10(high) - 1e-9


def test_ticks_of_the_smallest_numbers_stay_apart() -> None:
    values = ticks(1e-14, 3e-14, 4)
    assert values == sorted(set(values))
