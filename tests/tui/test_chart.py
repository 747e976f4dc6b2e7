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
        ([0.4, 0.4], (0.0, 0.8)),
        ([2e-5, 2e-5 + 1e-20], (0.0, 4e-5)),
        ([-7.0, -7.0], (-7.0, -7.0)),
        ([math.nan], (0.0, 1.0)),
        ([], (0.0, 1.0)),
    ],
)
def test_the_axis_holds_what_there_is_and_what_does_not_move_stands_in_its_middle(
    values: list[float], expected: tuple[float, float]
) -> None:
    assert value_range([values]) == expected
