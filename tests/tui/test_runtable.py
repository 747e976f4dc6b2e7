from __future__ import annotations

from aapo_desk.store import RunDirectory
from aapo_desk.tui.listing import PresetRow
from aapo_desk.tui.screens.dialogs import describe
from aapo_desk.tui.widgets.runtable import column_widths
from tests.tui import fixed_run
from tests.tui.driving import NARROW, Desk, settle, shown

LONG = {"step": 7, "name": 40, "model": 24}


def test_a_name_takes_the_room_that_no_model_needs() -> None:
    shared = column_widths(80, LONG)
    short_models = column_widths(80, LONG | {"model": 5, "name": 20})
    assert short_models["name"] == 20 > shared["name"]  # a run's id, whole
    assert short_models["model"] < shared["model"]
    assert sum(short_models.values()) == sum(shared.values())


def test_a_short_name_takes_nothing() -> None:
    assert column_widths(80, LONG | {"model": 5, "name": 8}) == column_widths(80, LONG)


async def test_where_a_budget_ends_the_run_its_share_stands_for_the_steps(desk: Desk, run: RunDirectory) -> None:
    budget = {"unit": "seconds", "limit": 120.0, "spent": 30.0}
    fixed_run.put_status(run, "running", 30, fixed_run.time_of(31), steps=10**6, budget=budget)
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert " 30, 25 % " in shown(app)
        assert "1000000" not in shown(app)


def test_a_preset_with_a_budget_says_what_ends_it() -> None:
    config = fixed_run.config(overrides={"run.seconds": 60, "run.completions": 500})
    text = describe(PresetRow("timed", "Timed", [], config)).plain
    assert "ends    after 60 s of training or 500 sampled completions, or earlier" in text
    assert "ends " not in describe(PresetRow("plain", "Plain", [], fixed_run.config())).plain
