from __future__ import annotations

from aapo_desk.tui.listing import RunList, created
from tests.tui import fixed_run
from tests.tui.driving import Live


def test_the_list_tells_live_from_left_and_names_what_cannot_be_read(live: Live) -> None:
    live(fixed_run.write_run("alive", "20260102-100000-aaaa", done=5))
    fixed_run.write_run("done", "20260102-090000-aaaa", done=40, state="finished")
    broken = fixed_run.new_run("broken", "20260102-080000-aaaa")
    broken.config.write_text("{}", encoding="utf-8")
    fixed_run.put_status(fixed_run.new_run("failed-one", "20260102-070000-aaaa"), "failed", 0, fixed_run.STARTED)
    runs = RunList()
    rows = runs.read()
    assert [(row.name, row.state, row.step, row.steps) for row in rows[:2]] == [
        ("alive", "running", 5, 40),
        ("done", "finished", 40, 40),
    ]
    assert (rows[2].name, rows[2].model) == ("broken", "?")
    assert rows[3].reward is None
    assert runs.read()[1] is rows[1]  # what cannot change is not read again


def test_a_run_was_made_when_its_id_says() -> None:
    assert created(fixed_run.new_run("x")) == fixed_run.STARTED
