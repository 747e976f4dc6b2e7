"""A run continued past its plan and one forked from a checkpoint equal a single run if no setting has changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import launch
from aapo_desk.config import resolve
from aapo_desk.store import RunDirectory, RunReader, RunWriter, StoreError, create_run, event_words
from tests.training.in_process import NOBODY, train, weights

STEPS, HALF = 4, 2
CLOCKS = ("seconds_", "tokens_per_second", "memory_mb")
pytestmark = pytest.mark.usefixtures("desk_home")


@pytest.fixture
def config(tiny_config: dict[str, Any]) -> dict[str, Any]:
    return tiny_config | {
        "run": {"steps": STEPS, "checkpoint_every": HALF, "keep_checkpoints": 9},
        "task": tiny_config["task"] | {"held_out": 2},
        "evaluation": {"problems": 2},
        "optimizer": {"learning_rate": 0.05},  # so that two steps change the greedy answers
        "rewards": [{"name": "format", "options": {"pattern": "[a-m]"}}],  # its workers start quickly
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trained runs by name; a test copies them into its home."""
    return {"home": tmp_path_factory.mktemp("trained")}


@pytest.fixture
def whole(desk_home: Path, config: dict[str, Any], trained: dict[str, Path]) -> RunDirectory:
    """A run that takes all steps without interruption."""
    if "whole" not in trained:
        trained["whole"] = train(create_run(resolve(config), "whole")).path.rename(
            trained["home"] / "20260101-000000-0000"
        )
    return RunDirectory(shutil.copytree(trained["whole"], desk_home / "runs" / trained["whole"].name))


def history(run: RunDirectory, steps: int = STEPS) -> list[Any]:
    """Return each step's metrics without timings, histograms and samples."""
    reader = RunReader(run)
    metrics = {
        step: {key: value for key, value in data.items() if not key.startswith(CLOCKS)}
        for step, _, data in reader.poll().metrics
    }
    assert list(metrics) == list(range(1, steps + 1))
    return [(metrics[step], reader.histograms(step), reader.samples(step)) for step in metrics]


def kinds(run: RunDirectory) -> list[str]:
    """Return the events' kinds, except for alarms, which a random model may raise, and for the device's choices."""
    events = [event.kind for event in RunReader(run).poll().events]
    return [kind for kind in events if not kind.startswith(("alarm", "probe"))]


def evaluations(run: RunDirectory) -> dict[int, Any]:
    return {step: data["greedy"]["answers"] for step, _, data in RunReader(run).poll().evaluations}


@pytest.mark.slow
def test_going_on_past_the_plan_and_a_fork_end_as_a_single_longer_run(
    whole: RunDirectory, config: dict[str, Any]
) -> None:
    short = train(create_run(resolve(config, {"run.steps": HALF}), "short"))
    before = short.config.read_bytes()
    launch.resume(short, NOBODY, steps=STEPS)
    assert short.read_status()["steps"] == STEPS
    train(short)
    assert short.config.read_bytes() == before
    assert weights(short, STEPS) == weights(whole, STEPS)
    assert history(short) == history(whole)
    assert evaluations(short) == evaluations(whole) | {HALF: evaluations(short)[HALF]}
    assert kinds(short) == [
        "started", "checkpoint", "finished", "resumed", "replanned", "checkpoint", "finished",
    ]  # fmt: skip

    parent = RunReader(whole).poll()
    settings = launch.forked_config(whole, HALF, {})
    fork = train(launch.fork(whole, launch.kept_checkpoint(whole, HALF), settings, "fork", NOBODY))
    assert weights(fork, STEPS) == weights(whole, STEPS)
    assert history(fork) == history(whole)
    assert evaluations(fork) == evaluations(whole)
    assert kinds(fork) == ["started", "checkpoint", "forked", "resumed", "checkpoint", "finished"]
    delta = RunReader(fork).poll()
    assert delta.metrics[:HALF] == parent.metrics[:HALF]  # timings too
    assert [when > delta.metrics[HALF - 1][1] for _, when, _ in delta.metrics[HALF:]] == [True, True]
    assert len(RunReader(fork).system()) == STEPS
    assert RunReader(fork).facts()["parent"]["id"] == whole.id


def test_a_fork_with_other_settings_keeps_the_past_and_measures_the_base_anew_where_it_asks_otherwise(
    whole: RunDirectory,
) -> None:
    changes = {"optimizer.learning_rate": 0.1, "rollout.max_new_tokens": 5}
    settings = launch.forked_config(whole, HALF, changes)
    fork = launch.fork(whole, launch.kept_checkpoint(whole, HALF), settings, "fork", NOBODY)
    assert history(fork, HALF) == history(whole)[:HALF]
    assert evaluations(fork) == {}
    assert "choices" not in RunReader(fork).facts()  # a different length needs a new plan
    train(fork)
    assert history(fork)[:HALF] == history(whole)[:HALF]
    assert weights(fork, STEPS) != weights(whole, STEPS)
    asked = evaluations(fork)
    assert list(asked) == [0, STEPS]
    # This is the base's evaluation, not the checkpoint's: the parent's answers before training, truncated to this run's
    # maximum length.
    assert [answer.startswith(cut) for answer, cut in zip(evaluations(whole)[0], asked[0], strict=True)] == [True, True]
    assert [metrics["learning_rate"] for _, _, metrics in RunReader(fork).poll().metrics] == [0.05, 0.05, 0.1, 0.1]
    (said,) = [event_words(event.kind, event.data) for event in RunReader(fork).poll().events if event.kind == "forked"]
    assert said == (
        f"forked from run whole ({whole.id}) at step {HALF}, changed: rollout.max_new_tokens 6 -> 5; "
        "optimizer.learning_rate 0.05 -> 0.1; the parent's evaluations are not comparable, so the base model is "
        "evaluated again"
    )


def test_what_was_trained_again_behind_the_checkpoint_is_not_taken_along(config: dict[str, Any]) -> None:
    parent = create_run(resolve(config), "parent")
    writer = RunWriter(parent)
    for kind, step in (("started", 0), ("notice", 1), ("alarm", 3), ("checkpoint", HALF), ("finished", HALF)):
        writer.write_event(kind, step)
    writer.write_evaluation(0, "held_out", {"greedy": {"answers": ["a"]}})
    writer.write_evaluation(3, "held_out", {"greedy": {"answers": ["b"]}})
    writer.remember("choices", {"threads": 1})
    writer.close()
    folder = parent.checkpoints / f"step_{HALF:06d}"
    folder.mkdir()
    (folder / "state.json").write_text('{"format": 1, "checksums": {}}')
    settings = launch.forked_config(parent, HALF, {"optimizer.learning_rate": 1.0})
    fork = launch.fork(parent, launch.kept_checkpoint(parent, None), settings, command=NOBODY)
    assert kinds(fork) == ["started", "notice", "checkpoint", "forked"]
    assert evaluations(fork) == {0: ["a"]}
    assert RunReader(fork).facts()["choices"] == {"threads": 1}
    assert (fork.checkpoints / folder.name / "state.json").is_file()


def test_a_fork_that_cannot_be_made_leaves_nothing_behind(config: dict[str, Any], desk_home: Path) -> None:
    parent = create_run(resolve(config), "parent")
    folder = parent.checkpoints / f"step_{HALF:06d}"
    folder.mkdir()
    (folder / "state.json").write_text('{"format": 1, "checksums": {}}')
    checkpoint = launch.kept_checkpoint(parent, HALF)
    with pytest.raises(StoreError, match="no recorded steps to copy"):
        launch.fork(parent, checkpoint, parent.read_config(), command=NOBODY)
    (folder / "state.json").unlink()
    folder.rmdir()
    with pytest.raises(launch.LaunchError, match="cannot be copied"):
        launch.fork(parent, checkpoint, parent.read_config(), command=NOBODY)
    assert [path.name for path in (desk_home / "runs").iterdir()] == [parent.id]
