"""Continuing a run that cannot continue: one clear line, the right exit status, nothing changed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import launch
from aapo_desk.cli.app import run
from aapo_desk.config import resolve
from aapo_desk.store import RunDirectory, RunWriter, StepRecord, create_run, event_words, list_runs
from tests.stand_in import STAND_IN, nothing_left_running, until

__all__ = ["nothing_left_running"]

WRONG_USE, FAILED = 2, 1


@pytest.fixture(autouse=True)
def parent(desk_home: Path, tiny_config: dict[str, Any]) -> RunDirectory:
    """A finished run of 9 steps, "done", that keeps the checkpoints of steps 6 and 9; "fresh" has none yet."""
    settings = tiny_config | {"run": {"steps": 9}, "optimizer": {"learning_rate": 1e-3, "warmup_steps": 5}}
    done = create_run(resolve(settings), "done")
    writer = RunWriter(done)
    writer.write_steps([StepRecord(step, float(step), {"reward": 0.5}, {}, []) for step in range(1, 10)])
    writer.close()
    for step in (6, 9):
        folder = done.checkpoints / f"step_{step:06d}"
        folder.mkdir()
        (folder / "state.json").write_text('{"format": 1, "checksums": {}}')
    done.status.write_text(json.dumps({"state": "finished", "step": 9, "steps": 9}))
    create_run(resolve(settings), "fresh").status.write_text(json.dumps({"state": "stopped", "step": 0}))
    return done


BELONGS = "since the checkpoint's adapter depends on it; the same holds for .*; every other setting may change"
REFUSED: dict[str, tuple[list[str], int, str]] = {
    "resume: an unknown run": (["resume", "dome", "--steps", "20"], WRONG_USE, r"RUN = 'dome': there is no such run"),
    "resume: fewer steps than are done": (
        ["resume", "done", "--steps", "8"],
        WRONG_USE,
        r"--steps = 8: run done has done 9 steps; give a larger total number of steps",
    ),
    "resume: as many steps as are done": (["resume", "done", "--steps", "9"], WRONG_USE, r"has done 9 steps"),
    "resume: no step": (
        ["resume", "done", "--steps", "0"],
        WRONG_USE,
        r"'--steps': Input should be greater than or equal to 1",
    ),
    "resume: no number": (
        ["resume", "done", "--steps", "many"],
        WRONG_USE,
        r"'--steps': Input should be a valid integer",
    ),
    "resume: a plan that ends in the warm-up": (
        ["resume", "fresh", "--steps", "4"],
        WRONG_USE,
        r"--steps = 4: is less than optimizer\.warmup_steps \(5\)",
    ),
    "resume: nothing left to do": (
        ["resume", "done"],
        FAILED,
        r"run done has finished all its steps; to add more: aapo-desk resume \S+ --steps N",
    ),
    "fork: an unknown run": (["fork", "dome"], WRONG_USE, r"RUN = 'dome': there is no such run"),
    "fork: no checkpoint yet": (["fork", "fresh"], WRONG_USE, r"RUN = 'fresh': has no checkpoint yet"),
    "fork: a checkpoint that is not kept": (
        ["fork", "done", "--step", "7"],
        WRONG_USE,
        r"--step = 7: run done has no checkpoint of this step; it has: 6, 9",
    ),
    "fork: no step left": (
        ["fork", "done"],
        WRONG_USE,
        r"run\.steps = 9: the checkpoint is of step 9, so no step would be left; raise it with --set run\.steps=N",
    ),
    "fork: a plan behind the checkpoint": (
        ["fork", "done", "--step", "6", "--set", "run.steps=6"],
        WRONG_USE,
        r"run\.steps = 6 \(from --set\): the checkpoint is of step 6",
    ),
    "fork: another model": (
        ["fork", "done", "--step", "6", "--set", "model.id=owner/other"],
        WRONG_USE,
        rf"model\.id = 'owner/other' \(from --set\): must stay \S+ in a fork, {BELONGS}",
    ),
    "fork: another quantisation": (
        ["fork", "done", "--step", "6", "--set", "model.quantization=nf4"],
        WRONG_USE,
        rf"model\.quantization = 'nf4' \(from --set\): must stay none in a fork, {BELONGS}",
    ),
    "fork: another rank": (
        ["fork", "done", "--step", "6", "--set", "lora.r=8"],
        WRONG_USE,
        rf"lora\.r = 8 \(from --set\): must stay 4 in a fork, {BELONGS}",
    ),
    "fork: an unknown setting": (
        ["fork", "done", "--step", "6", "--set", "rollout.group_sise=8"],
        WRONG_USE,
        r"rollout\.group_sise.*did you mean rollout\.group_size\?",
    ),
    "fork: a name that is taken": (
        ["fork", "done", "--step", "6", "--name", "fresh"],
        WRONG_USE,
        r"--name = 'fresh': a run with this name exists",
    ),
}


@pytest.mark.parametrize(("arguments", "status", "said"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_in_one_line_and_changes_nothing(
    arguments: list[str], status: int, said: str, parent: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == status
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert re.search(said, line)
    assert len(list_runs()) == 2
    assert not any(one.plan.exists() for one in list_runs())


def test_a_damaged_checkpoint_is_not_forked(parent: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    state = parent.checkpoints / "step_000006" / "state.json"
    state.write_text('{"format": 1, "checksums": {"optimizer.safetensors": "0"}}')
    assert run(["fork", "done", "--step", "6"]) == FAILED
    assert "optimizer.safetensors is missing or damaged" in capsys.readouterr().err
    assert len(list_runs()) == 2


def test_the_plan_of_a_run_that_trains_is_not_changed(
    tiny_config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    running = launch.start(resolve(tiny_config), "busy", command=STAND_IN)
    until(lambda: launch.state(running) == "running")
    assert run(["resume", "busy", "--steps", "20"]) == FAILED
    said = capsys.readouterr().err
    assert "run busy is running, but its number of steps can only be changed while it is stopped" in said
    assert f"stop it first with: aapo-desk stop {running.id}" in said
    assert not running.plan.exists()


def test_a_plan_that_was_changed_is_what_every_reader_sees(
    parent: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    before = parent.config.read_bytes()
    launch.resume(parent, STAND_IN, steps=20)
    assert parent.config.read_bytes() == before
    assert (parent.read_config().run.steps, parent.read_settings()["run"]["steps"]) == (20, 20)
    assert run(["runs", "show", "done"]) == 0
    assert re.search(r"^step +9 of 20$", capsys.readouterr().out, re.MULTILINE)
    assert run(["runs", "--json"]) == 0
    assert [facts["steps"] for facts in json.loads(capsys.readouterr().out)] == [9, 20]


def test_a_run_that_ended_before_its_new_plan_took_effect_goes_on_by_a_plain_resume(parent: RunDirectory) -> None:
    parent.replan(20)  # and then the power failed
    launch.resume(parent, STAND_IN)
    until(lambda: launch.state(parent) == "running")


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("constant", "planned for 20 steps instead of 9"),
        (
            "cosine",
            "planned for 20 steps instead of 9; from now on the cosine learning rate decays to the new end, so "
            "earlier steps had other learning rates than in a single run of 20 steps",
        ),
    ],
)
def test_a_new_plan_says_what_becomes_of_the_learning_rate(schedule: str, said: str) -> None:
    assert event_words("replanned", {"before": 9, "steps": 20, "schedule": schedule}) == said


def test_a_fork_says_that_it_may_have_trained_on_what_it_holds_out_now() -> None:
    facts = {"id": "x", "name": "x", "step": 6, "changed": {"run.seed": [0, 1]}, "evaluations": False}
    assert event_words("forked", facts) == (
        "forked from run x at step 6, changed: run.seed 0 -> 1; the parent's evaluations are not comparable, so the "
        "base model is evaluated again; problems held out now may have been trained on in the parent run"
    )
