"""A run ends when its budget of seconds or completions is used up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aapo_desk import launch
from aapo_desk.config import ConfigError, resolve
from aapo_desk.store import Budget, RunDirectory, RunReader, budget_of, create_run
from aapo_desk.training.control import Control
from tests.training.in_process import NOBODY, train, weights

pytestmark = pytest.mark.usefixtures("desk_home")


@pytest.fixture
def config(tiny_config: dict[str, Any]) -> dict[str, Any]:
    """Each step samples 2 x 4 completions of the policy and as many of the reference."""
    return tiny_config | {
        "task": tiny_config["task"] | {"held_out": 2},
        "evaluation": {"problems": 2},
        "rewards": [{"name": "format", "options": {"pattern": "[a-m]"}}],  # its workers start quickly
        "run": {"steps": 1000, "checkpoint_every": 100},
    }


def steps(run: RunDirectory) -> list[int]:
    return [step for step, _, _ in RunReader(run).poll().metrics]


def evaluated(run: RunDirectory) -> list[int]:
    return [step for step, _, _ in RunReader(run).poll().evaluations]


def test_a_run_ends_with_the_step_that_uses_its_completions_up_as_one_planned_so_long(config: dict[str, Any]) -> None:
    run = train(create_run(resolve(config, {"run.completions": 17}), "counted"))
    assert steps(run) == [1, 2]
    assert evaluated(run) == [0, 2]
    assert run.read_config().run.steps == 2
    assert "run.completions=17 used up (32 sampled): this was the last step" in [
        event.data.get("message") for event in RunReader(run).poll().events
    ]
    planned = train(create_run(resolve(config, {"run.steps": 2}), "planned"))
    assert weights(run, 2) == weights(planned, 2)

    launch.resume(run, NOBODY, steps=3)  # replanning removes the budget
    assert steps(train(run)) == [1, 2, 3]


def test_a_run_that_is_killed_before_its_last_evaluation_ends_at_the_same_step(config: dict[str, Any]) -> None:
    run = create_run(resolve(config, {"run.seconds": 1e-6}), "timed")
    train(run)
    assert steps(run) == [1]
    assert evaluated(run) == [0, 1]
    for checkpoint in run.checkpoints.iterdir():  # as if the run had only reached the step
        checkpoint.rename(Path(run.path, "gone"))
    assert steps(train(run)) == [1]


def test_with_a_schedule_that_needs_the_last_step_it_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"optimizer.schedule \(cosine\) must be constant if run.seconds is set"):
        resolve(config, {"run.seconds": 5, "optimizer.schedule": "cosine"})


def test_what_is_left_is_said_while_it_trains_and_by_whoever_starts_it(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Budget | None] = []

    class Listening(Control):
        def say(self, **changes: Any) -> None:
            super().say(**changes)
            said.append(budget_of(self.status))

    run = create_run(resolve(config, {"run.completions": 33}), "counted")
    run.status.write_text('{"state": "stopped"}')
    launch.resume(run, NOBODY)
    assert budget_of(run.read_status()) == Budget("completions", 33)
    train(run, control=Listening)
    assert list(dict.fromkeys(said)) == [Budget("completions", 33, spent) for spent in (0, 16, 32)] + [None]
    assert run.read_status()["steps"] == 3
