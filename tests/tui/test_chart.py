from __future__ import annotations

import math

import pytest

from aapo_desk.tui.widgets.chart import value_range


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.2, math.nan, 0.9], (0.2, 0.9)),
        ([-1.5, 3.0], (-1.5, 3.0)),
        ([0.0, 0.0], (0.0, 1.0)),
        ([0.4, 0.4], (0.0, 1.0)),
        ([7.0, 7.0], (7.0, 7.0)),
        ([math.nan], (0.0, 1.0)),
        ([], (0.0, 1.0)),
    ],
)
def test_the_axis_holds_what_there_is_and_a_still_share_stands_in_its_whole_range(
    values: list[float], expected: tuple[float, float]
) -> None:
    assert value_range([values]) == expected
