from __future__ import annotations

import math

import pytest

from aapo_desk.tui.widgets.sparkline import sparkline


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 8, ""),
        ([0.0, 0.5, 1.0], 8, "▁▄▇"),
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], 3, "▂▄▇"),
        ([0.5, 0.5], 4, "▇▇"),
        ([0.0, 0.0], 4, "▁▁"),
        ([-2.0, -1.0, 0.0], 4, "▁▄▇"),
        ([0.5, None, 1.0], 4, "▄ ▇"),
        ([None, math.nan, math.inf], 4, "   "),
        ([1.0], 0, ""),
    ],
)
def test_bars_rise_from_zero_to_the_highest_value(values: list[float | None], width: int, drawn: str) -> None:
    assert sparkline(values, width) == drawn


def test_any_number_of_values_fits_the_width() -> None:
    for count in range(60):
        assert len(sparkline([float(value) for value in range(count)], 10)) == min(count, 10)
