from __future__ import annotations

from pathlib import Path

import pytest

from aapo_desk.store import RunDirectory
from aapo_desk.tui.arranging import VALUES, Order, arranged, matching
from aapo_desk.tui.listing import RunRow


def row(
    name: str, state: str, model: str, step: int, reward: float | None, created: float, pinned: bool = False
) -> RunRow:
    rewards = (0.0, 0.0, 0.0, reward) if reward is not None else ()
    return RunRow(RunDirectory(Path(name)), name, state, model, step, 100, reward, created, pinned, rewards)


ROWS = [
    row("Gamma", "finished", "owner/big", 30, 0.2, 300.0),
    row("alpha", "running", "owner/small", 10, None, 200.0),
    row("beta", "stopped", "owner/middle", 20, 0.9, 100.0),
]


def names(order: Order) -> list[str]:
    return [each.name for each in arranged(ROWS, order)]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("age", ["Gamma", "alpha", "beta"]),
        ("state", ["alpha", "Gamma", "beta"]),
        ("name", ["alpha", "beta", "Gamma"]),
        ("model", ["Gamma", "beta", "alpha"]),
        ("step", ["Gamma", "beta", "alpha"]),
        ("reward", ["beta", "Gamma", "alpha"]),
        ("trend", ["beta", "Gamma", "alpha"]),
    ],
)
def test_each_column_orders_the_runs(column: str, expected: list[str]) -> None:
    assert names(Order(column)) == expected


def test_the_other_way_round_what_has_no_value_still_comes_last() -> None:
    assert names(Order("reward", reverse=True)) == ["Gamma", "beta", "alpha"]
    assert names(Order("name", reverse=True)) == ["Gamma", "beta", "alpha"]


def test_the_pinned_stay_on_top_whatever_the_order() -> None:
    pinned = row("pinned", "failed", "z/z", 0, None, 0.0, pinned=True)
    for column in VALUES:
        for reverse in (False, True):
            assert arranged([*ROWS, pinned], Order(column, reverse))[0] == pinned


def test_going_on_from_column_to_column_comes_to_all_of_them() -> None:
    order, seen = Order(), []
    for _ in VALUES:
        order = order.next
        seen.append(order.column)
    assert sorted(seen) == sorted(VALUES)
    assert order == Order()


def test_choosing_the_same_column_again_turns_it_round() -> None:
    assert Order("name").by("name") == Order("name", reverse=True)
    assert Order("name", reverse=True).by("step") == Order("step")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["Gamma", "alpha", "beta"]),
        ("ALPHA", ["alpha"]),
        ("finish", ["Gamma"]),
        ("middle", ["beta"]),
        ("a stop", ["beta"]),
        ("owner", []),
        ("[", []),
    ],
)
def test_a_filter_looks_for_each_word_in_name_model_and_state(text: str, expected: list[str]) -> None:
    assert [each.name for each in matching(ROWS, text)] == expected
