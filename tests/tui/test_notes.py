from __future__ import annotations

import pytest

from aapo_desk.store import RunDirectory
from aapo_desk.tui.widgets.notes import NotesView, evaluations_text, log_text
from tests import scored
from tests.tui.driving import NARROW, WIDE, Desk, monitor, press, settle, shown
from tests.tui.fixed_run import evaluation


def test_the_warm_start_has_its_row_between_the_base_and_the_first_step() -> None:
    found = {0: evaluation(0), 10: evaluation(10)}
    lines = evaluations_text(found, evaluation(30)).plain.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["step", "base", "warm", "10"]
    figures = evaluations_text({0: evaluation(30)}).plain.splitlines()[1].removeprefix("base")
    assert lines[2].removeprefix("warm") == figures
    assert "warm" not in evaluations_text(found).plain


def test_unscorable_answers_stand_beside_the_accuracies_of_their_step() -> None:
    base = scored.old_row([1.0, None, 0.0, 0.0])
    text = evaluations_text({0: base, 10: scored.row([None, 1.0, 0.0, 0.0], base)}).plain
    assert "base  0.25" in text, "counted as in the row that it is compared with"
    assert text.count("1 unscorable, 1 unscorable") == 2
    assert "10 greedy: 1 of 4 unscorable, counted as wrong" in text
    assert "3 of 4 scored, 3 of 4 scored" in evaluations_text({0: base}).plain


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_a_text_narrows_events_and_log_to_its_lines(desk: Desk, run: RunDirectory, size: tuple[int, int]) -> None:
    run.log.write_text(
        "loading the model\nstep 1/40  reward 0.1\nOut of room\nstep 2/40  reward 0.2\n", encoding="utf-8"
    )
    app = desk(run)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        notes = app.screen.query_one(NotesView)
        notes.open("log")
        step = monitor(app).step
        await press(pilot, "slash", *"STEP", "enter")
        assert "2 of 4 with “STEP”" in shown(app)
        assert "reward 0.2" in shown(app)
        assert "loading the model" not in shown(app)
        notes.put("log", log_text(["step 3/40  reward 0.3", "paused"]))  # what is new is searched too
        await pilot.pause()
        assert "reward 0.3" in shown(app)
        assert "paused" not in shown(app)
        await press(pilot, "left")  # keys are the monitor's again
        assert monitor(app).step == step - 1
        await press(pilot, "slash", *["backspace"] * 4, "enter")
        assert "paused" in shown(app)


async def test_a_text_is_asked_for_in_the_log_where_evaluations_are_shown(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        notes = app.screen.query_one(NotesView)
        notes.open("evaluations")
        await press(pilot, "slash", "escape")
        assert notes.view == "log"
        assert app.screen.focused is None
