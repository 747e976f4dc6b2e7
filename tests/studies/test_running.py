"""A study at work, for real: killed with its trainer in the middle, it continues from where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import launch
from aapo_desk.cli import findings as told
from aapo_desk.config import resolve
from aapo_desk.launch import LaunchError
from aapo_desk.launch.child import environment
from aapo_desk.store import RunDirectory, RunReader, RunWriter, create_run, find_run
from aapo_desk.studies import queue, running
from aapo_desk.studies.arms import ALGORITHM, Arm, make_budget
from aapo_desk.studies.findings import StudyReader
from aapo_desk.studies.study import Study, create_study
from aapo_desk.tui.widgets.studytext import outcomes_text, runs_text
from tests import scored, studied
from tests.training.in_process import train, weights

CLOCKS = ("seconds_", "tokens_per_second", "memory_mb")


@pytest.fixture
def study(desk_home: Path, tiny_config: dict[str, Any]) -> Study:
    settings = tiny_config | {
        "task": tiny_config["task"] | {"held_out": 4},
        "evaluation": {"problems": 4},
        "rewards": [{"name": "format", "options": {"pattern": "[a-m]"}}],  # its workers start quickly
        "run": {"steps": 3, "checkpoint_every": 1},
    }
    arms = [Arm(name, resolve(settings, {ALGORITHM: name})) for name in ("aapo", "grpo")]
    return create_study("tiny", "tiny", ALGORITHM, arms, [0], make_budget("completions", None, arms))


def until(happened: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def supervisor(study: Study) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "aapo_desk", "study", "run", study.id]
    with study.log.open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment(), start_new_session=True)


def written(run: RunDirectory) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in data.items() if not key.startswith(CLOCKS)}
        for _, _, data in RunReader(run).poll().metrics
    ]


@pytest.mark.slow
def test_killed_with_its_trainer_a_study_ends_as_if_nothing_had_been(study: Study) -> None:
    first = study.run_name(study.arms[0], 0)

    def begun() -> bool:
        member = running.members(study).get(first)
        return bool(member and member.run and list(member.run.checkpoints.glob("step_*")))

    with supervisor(study) as process:
        until(begun)
        os.kill(process.pid, signal.SIGKILL)
        launch.kill(find_run(first))
    assert not running.is_at_work(study)
    with supervisor(study) as process:
        assert process.wait(120) == 0, study.log.read_text()
    found = StudyReader(study).read()
    assert [run.state for run in found.runs] == ["finished", "finished"]
    assert len(queue.entries()) == 2
    for arm, steps in zip(study.arms, (3, 6), strict=True):
        run = find_run(study.run_name(arm, 0))
        alone = train(create_run(study.config(arm, 0), f"{arm.label} alone"))
        assert weights(run, steps) == weights(alone, steps)
        assert written(run) == written(alone)
    assert "2 of 2 runs finished" in study.log.read_text()


@pytest.mark.usefixtures("desk_home")
def test_a_study_that_was_cut_off_while_it_was_put_in_the_queue_is_put_in_once() -> None:
    study = studied.make_study("sums")
    names = [study.run_name(arm, seed) for seed in (0, 1, 2) for arm in study.arms]
    assert [entry.name for entry in queue.entries(study.id)] == names
    queue.remove("sums grpo 0")
    running.put_in(study)
    assert sorted(str(entry.name) for entry in queue.entries(study.id)) == sorted(names)


@pytest.mark.usefixtures("desk_home")
def test_two_cannot_work_at_one_study() -> None:
    study = studied.make_study("sums")
    with running.only_one(study):
        assert running.is_at_work(study)
        with pytest.raises(LaunchError, match="study sums is already running; see: aapo-desk study show"):
            running.work(study, print)
    assert not running.is_at_work(study)


@pytest.mark.usefixtures("desk_home")
def test_the_seconds_of_the_first_run_become_everyones_budget() -> None:
    arms = [Arm(name, resolve(studied.SETTINGS, {ALGORITHM: name})) for name in ("aapo", "grpo")]
    study = create_study("timed", "demo", ALGORITHM, arms, [0, 1], make_budget("seconds", None, arms))
    running.put_in(study)
    (entry,) = queue.entries(study.id)
    assert (entry.config["run"]["steps"], entry.config["run"]["seconds"]) == (10, None)
    studied.end(study)
    known = running.measured(study)
    assert known.budget.amount == pytest.approx(60.0)
    assert known.config(arms[1], 1).run.seconds == pytest.approx(60.0)


@pytest.mark.usefixtures("desk_home")
def test_a_first_run_that_failed_measures_nothing() -> None:
    arms = [Arm(name, resolve(studied.SETTINGS, {ALGORITHM: name})) for name in ("aapo", "grpo")]
    study = create_study("timed", "demo", ALGORITHM, arms, [0], make_budget("seconds", None, arms))
    running.put_in(study)
    studied.end(study, failing=("aapo", 0))
    with pytest.raises(LaunchError, match=r"\(timed aapo 0\) is failed: the disk is full; fix it, or start another"):
        running.measured(study)


@pytest.mark.usefixtures("desk_home")
def test_runs_whose_entries_were_cleared_away_still_count_and_are_not_trained_again() -> None:
    study = studied.write_study("sums")
    for entry in queue.entries(study.id):
        queue.remove(entry.id)
    found = StudyReader(study).read()
    assert (found.done, [run.name for run in found.failed]) == (5, ["sums grpo 2"])
    running.put_in(study)
    assert queue.entries() == []


@pytest.mark.usefixtures("desk_home")
def test_unscorable_answers_are_wrong_in_what_a_study_pools_also_of_older_runs() -> None:
    study = studied.make_study("sums", seeds=1)
    studied.end(study)
    base, hanging = [1.0, 0.0, 0.0, 0.0], [1.0, None, None, None]
    rows = {
        "sums aapo 0": (scored.row(base), scored.row([1.0, 1.0, 0.0, 0.0])),
        "sums grpo 0": (scored.old_row(base), scored.old_row(hanging, scored.old_row(base))),
    }
    for name, (before, after) in rows.items():
        writer = RunWriter(find_run(name))
        writer.write_evaluation(0, "held_out", before)
        writer.write_evaluation(writer.last_step(), "held_out", after)
        writer.close()
    found = StudyReader(study).read()
    outcome = found.arms[1].sides["greedy"]
    assert outcome.tuned is not None
    assert outcome.gain is not None
    assert outcome.against is not None
    assert (outcome.tuned.mean, outcome.gain.mean) == (0.25, 0.0)
    assert (outcome.against.estimate.mean, outcome.against.pairs) == (-0.25, 4)
    assert "B, tuned: 3 of 4 unscorable, counted as wrong" in told.lines(found)
    assert "0.25 (3 unscorable)" in runs_text(found, 120).plain
    assert "B, tuned: 3 of 4 unscorable, counted as wrong" in outcomes_text(found, 120).plain
    assert told.document(found)["arms"][1]["runs"][0]["unscorable"] == {"greedy": 3, "sampled": 3}
