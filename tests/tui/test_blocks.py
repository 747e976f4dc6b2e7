from __future__ import annotations

import math

import pytest

from aapo_desk.store import Histogram
from aapo_desk.tui.widgets.blocks import bar, bars, fit_bins, spark
from aapo_desk.tui.widgets.histogram import axis, zero_column


def test_bars_rise_in_eighths() -> None:
    assert bars([0, 1, 2, 4, 8, 12, 16], height=2) == ["     ▄█", " ▁▂▄███"]


def test_the_smallest_count_is_still_seen() -> None:
    assert bars([1, 100_000], height=1) == ["▁█"]


@pytest.mark.parametrize("values", [[], [0, 0, 0], [math.nan, -1.0, 0.0]])
def test_nothing_to_show_is_blank(values: list[float]) -> None:
    assert bars(values, height=2) == [" " * len(values)] * 2


def test_equal_counts_fill_the_height() -> None:
    assert bars([3, 3], height=2) == ["██", "██"]


@pytest.mark.parametrize("width", [1, 7, 16, 32, 33, 64, 100])
def test_bins_fit_the_width_and_lose_no_count(width: int) -> None:
    counts = list(range(32))
    bins, columns = fit_bins(counts, width)
    assert len(bins) * columns <= width
    assert sum(bins) == sum(counts)


def test_no_bins_fit_anywhere() -> None:
    assert fit_bins([], 10) == ([], 1)
    assert fit_bins([1, 2], 0) == ([], 1)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "    "), (1.0, "████"), (0.5, "██  "), (0.53, "██▏ "), (2.0, "████"), (None, "    "), (math.nan, "    ")],
)
def test_a_bar_grows_with_its_share(share: float | None, text: str) -> None:
    assert bar(share, 4) == text


def test_a_spark_averages_what_does_not_fit_and_leaves_gaps() -> None:
    assert spark([0.0, 1.0, math.nan, 0.5], width=4) == "▁█ ▄"
    assert spark([0.0, 1.0] * 50, width=10) == "▄" * 10
    assert spark([], width=10) == ""


def test_the_axis_names_its_ends_and_zero() -> None:
    item = Histogram(-1.0, 1.0, [0] * 16)
    assert axis(item, 16) == "-1──────0──────1"
    assert zero_column(item, 16) == 8


def test_zero_outside_the_range_is_not_marked() -> None:
    item = Histogram(1.0, 2.0, [0] * 8)
    assert zero_column(item, 8) is None
    assert axis(item, 8) == "1──────2"
