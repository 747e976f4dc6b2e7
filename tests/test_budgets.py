"""A run that ends where its seconds or completions are used up: how its progress is shown."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from aapo_desk.cli.app import run
from aapo_desk.cli.follow import Follower
from aapo_desk.config import resolve
from aapo_desk.store import Budget, RunDirectory, RunWriter, budget_of, create_run, planned_budget, progress, share_done
from tests.run_data import record, status

pytestmark = pytest.mark.usefixtures("desk_home")
Output = pytest.CaptureFixture[str]
MANY = 1_000_000


@pytest.fixture
def timed() -> RunDirectory:
    """Two steps of 30 s each of a run that has 120 s."""
    settings = {"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}}
    run = create_run(resolve(settings, {"run.steps": MANY, "run.seconds": 120}), "timed")
    writer = RunWriter(run)
    for step in (1, 2):
        writer.write_step(record(step, seconds_rollout=20.0, seconds_reward=0.0, seconds_update=10.0))
    writer.close()
    said = {"unit": "seconds", "limit": 120.0, "spent": 60.0}
    status(run, "stopped", step=2, steps=MANY, budget=said)
    return run


@pytest.mark.parametrize(
    ("budget", "words", "share"),
    [
        (None, "12/300", 0.04),
        (Budget("seconds", 120, 41.4), "12, 41 of 120 s", 41.4 / 120),
        (Budget("seconds", 120, 1), "12/300", 0.04),  # its steps end it first
        (Budget("completions", 4000, 480), "12, 480 of 4000 completions", 0.12),
    ],
)
def test_how_far_a_run_is_is_told_by_what_ends_it_first(budget: Budget | None, words: str, share: float) -> None:
    assert progress(12, 300, budget) == words
    assert share_done(12, 300, budget) == share


def test_before_a_trainer_has_said_it_the_settings_tell_and_a_new_plan_takes_it_away(timed: RunDirectory) -> None:
    assert planned_budget(timed) == Budget("seconds", 120, 60)
    timed.status.unlink()
    assert planned_budget(timed) == Budget("seconds", 120)
    timed.replan(40)
    assert planned_budget(timed) is None


@pytest.mark.parametrize("said", [None, {}, [], "x", {"unit": "seconds"}, {"unit": "m", "limit": 1, "spent": 0}])
def test_a_status_without_a_budget_that_can_be_read_has_none(said: Any) -> None:
    assert budget_of({"budget": said}) is None


def test_lists_and_show_tell_the_time_and_not_the_step_that_never_comes(timed: RunDirectory, capsys: Output) -> None:
    assert run(["runs", "list"]) == 0
    assert run(["runs", "show", "timed"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"timed +stopped +2, 60 of 120 s ", text)
    assert re.search(r"^step +2, 60 of 120 s$", text, flags=re.MULTILINE)
    assert str(MANY) not in text
    assert run(["runs", "list", "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["budget"] == {"unit": "seconds", "limit": 120.0, "spent": 60.0}


def test_a_followed_runs_lines_tell_what_each_step_has_used_up(timed: RunDirectory) -> None:
    lines = [line for line in Follower(timed).look() if line.startswith("step")]
    assert [line.partition("  reward")[0] for line in lines] == ["step    1,  30 of 120 s", "step    2,  60 of 120 s"]


def test_the_last_word_of_a_stopped_run_tells_the_time(timed: RunDirectory, capsys: Output) -> None:
    assert run(["watch", "timed"]) == 1
    assert f"stopped after step 2, 60 of 120 s; resume with: aapo-desk resume {timed.id}" in capsys.readouterr().err


def test_a_run_that_ended_by_its_budget_while_followed_has_taken_all_its_steps(
    timed: RunDirectory, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_plan = Follower.read_plan
    status(timed, "finished", step=2, steps=2, budget=None)

    def then_end(follower: Follower) -> None:
        read_plan(follower)
        timed.replan(2)

    monkeypatch.setattr(Follower, "read_plan", then_end)
    assert run(["watch", "timed"]) == 0
    assert "finished, 2 of 2 steps" in capsys.readouterr().out


def test_a_queued_run_tells_the_time_that_it_is_to_take(timed: RunDirectory, capsys: Output) -> None:
    assert (
        run(
            [
                "queue",
                "add",
                "demo",
                "--set",
                f"run.steps={MANY}",
                "--set",
                "run.seconds=120",
                "--set",
                "optimizer.schedule=constant",
            ]
        )
        == 0
    )
    assert run(["queue", "list"]) == 0
    assert "0, 0 of 120 s" in capsys.readouterr().out
