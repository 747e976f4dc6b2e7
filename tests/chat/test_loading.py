"""Which checkpoint is talked to, what is refused, and with which message; the run's own problems."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.chat.loading import load, own_problems
from aapo_desk.chat.request import Answering, choose, is_live
from aapo_desk.checkpoint import CheckpointError
from aapo_desk.config import ConfigError, resolve
from aapo_desk.models.sources import ModelError
from aapo_desk.store import RunDirectory, RunWriter, Sample, StepRecord, create_run
from tests.export.runs import trained_run
from tests.export.runs import tuned as tuned_policy

Break = Callable[[RunDirectory, Path], None]


@pytest.fixture
def tuned(desk_home: Path, tiny_config: dict[str, Any]) -> RunDirectory:
    """A run with checkpoints of the steps 1, the best, and 2."""
    return trained_run(tiny_config)


@pytest.mark.parametrize(
    ("step", "live", "found"), [(None, False, 1), (None, True, 2), ("last", False, 2), ("2", True, 2)]
)
def test_it_is_the_best_checkpoint_and_the_last_of_a_run_that_trains(
    tuned: RunDirectory, step: str | None, live: bool, found: int
) -> None:
    assert choose(tuned, step, live).step == found


def test_a_run_lives_while_its_trainer_holds_the_lock(tuned: RunDirectory) -> None:
    assert not is_live(tuned)
    with tuned.lock.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_live(tuned)


def test_what_is_loaded_is_the_checkpoints_adapter(tuned: RunDirectory) -> None:
    lines: list[str] = []
    policies = [load(choose(tuned, step, False), lines.append) for step in ("1", "2")]
    for step, policy in enumerate(policies, start=1):
        right = tuned_policy(tuned.read_config().model_dump(mode="json"), seed=step).adapter_parameters()
        assert all(value.equal(right[name]) for name, value in policy.adapter_parameters().items())
    assert any(line.startswith("loading ") for line in lines)


def no_checkpoints(run: RunDirectory, _: Path) -> None:
    shutil.rmtree(run.checkpoints)


def damaged(run: RunDirectory, _: Path) -> None:
    file = run.checkpoints / "step_000002" / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])


def no_state(run: RunDirectory, _: Path) -> None:
    (run.checkpoints / "step_000002" / "state.json").unlink()


def other_model(run: RunDirectory, _: Path) -> None:
    _change(run, lambda config: config["lora"].update(r=2))


def no_model(run: RunDirectory, model: Path) -> None:
    _change(run, lambda config: config["model"].update(id=str(model / "gone")))


def empty_model(run: RunDirectory, empty: Path) -> None:
    (empty / "config.json").write_text("{}")
    _change(run, lambda config: config["model"].update(id=str(empty)))


def _change(run: RunDirectory, change: Callable[[dict[str, Any]], None]) -> None:
    config = json.loads(run.config.read_text())
    change(config)
    run.config.write_text(json.dumps(config))


def nothing(run: RunDirectory, _: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "step", "live", "kind", "said"),
    [
        (no_checkpoints, None, False, ConfigError, "has no checkpoint yet.*aapo-desk resume tuned"),
        (no_checkpoints, None, True, ConfigError, "writes one every 1 steps.*aapo-desk checkpoint tuned"),
        (nothing, "7", False, ConfigError, "--step = '7': there is no such checkpoint; there are 1, 2, best and last"),
        (nothing, "first", False, ConfigError, "--step = 'first': there is no such checkpoint"),
        (damaged, "2", False, CheckpointError, "adapter_model.safetensors is missing or damaged.*other.*--step 1"),
        (no_state, "last", False, CheckpointError, "no readable state.json.*--step 1"),
        (other_model, None, False, CheckpointError, "does not fit"),
        (no_model, None, False, ConfigError, "model.id = .*gone.*there is no such folder"),
        (empty_model, None, False, ModelError, "cannot be loaded"),
    ],
)
def test_what_cannot_be_talked_to_is_told_in_a_line(
    tuned: RunDirectory, tmp_path: Path, spoil: Break, step: str, live: bool, kind: type[Exception], said: str
) -> None:
    place = tmp_path / "model"
    place.mkdir()
    spoil(tuned, place)
    with pytest.raises(kind, match=said) as caught:
        load(choose(tuned, step, live), lambda _: None)
    assert "\n" not in str(caught.value)


def test_the_runs_own_problems_are_those_that_it_never_trained_on(tuned: RunDirectory) -> None:
    found = own_problems(tuned, tuned.read_config())
    assert len(found.problems) == 8
    assert found.note == ""
    assert all(problem.answer.lstrip("-").isdecimal() for problem in found.problems)


def test_where_the_data_have_gone_the_stored_completions_problems_are_at_hand(
    desk_home: Path, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    run = create_run(resolve(tiny_config | {"task": {"source": f"file:{tmp_path}/gone.jsonl"}}), "gone")
    assert own_problems(run, run.read_config()).problems == []
    sample = Sample(1, "a", 0, "What is 2 + 3?", "5", "5", 1.0, {}, None, None, None, 2, False, False)
    writer = RunWriter(run)
    writer.write_step(StepRecord(1, 1.0, {"reward": 1.0}, {}, [sample]))
    writer.close()
    found = own_problems(run, run.read_config())
    assert [(problem.problem, problem.answer) for problem in found.problems] == [("What is 2 + 3?", "5")]
    assert "there is no such file" in found.note
    assert "trained on" in found.note


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("temperature 0.7", Answering(0.7, 0.9, 30)),
        ("temperature=0 tokens=12", Answering(0.0, 0.9, 12)),
        ("top-p 1 temperature 1", Answering(1.0, 1.0, 30)),
    ],
)
def test_settings_are_named_in_pairs(text: str, found: Answering) -> None:
    assert Answering(0.2, 0.9, 30).changed(text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be pairs of a name and a number"),
        ("temperature", "must be pairs of a name and a number"),
        ("heat 3", "= 'heat': unknown name; allowed are temperature, top-p, tokens"),
        ("temperature hot", "temperature = 'hot': must be a number"),
        ("temperature nan", "must be a number"),
        ("temperature -1", "must be 0 .greedy. to 5"),
        ("top-p 0", "above 0 and at most 1"),
        ("top-p 1.5", "above 0 and at most 1"),
        ("tokens 2.5", "tokens = '2.5': must be a whole number"),
        ("tokens 0", "must be 1 or more"),
    ],
)
def test_settings_that_are_none_are_told_in_a_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Answering().changed(text)


@pytest.mark.parametrize(
    ("answering", "words"),
    [
        (Answering(), "greedy, up to 256 tokens"),
        (Answering(0.0, 0.9, 12), "greedy, up to 12 tokens"),
        (Answering(0.7, 0.9), "temperature 0.7, top-p 0.9, up to 256 tokens"),
    ],
)
def test_how_it_answers_in_words(answering: Answering, words: str) -> None:
    assert answering.words(256) == words
