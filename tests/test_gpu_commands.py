"""Everything but the steps of a run on a CUDA device, and the commands on it afterwards. Skipped without one.

Each method takes a step there, with a warm start; a run continues past its plan, forks, rolls back; commands answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from aapo_desk import launch
from aapo_desk.config import METHODS, resolve
from aapo_desk.launch.child import environment
from aapo_desk.store import RunDirectory, RunReader, create_run, list_checkpoints
from tests.determinism import WORKSPACE, deterministic
from tests.training.in_process import NOBODY, train, weights

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


@pytest.fixture
def same_bits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two runs of this process can be compared bit for bit."""
    monkeypatch.setenv(*WORKSPACE)
    with deterministic():
        yield


@pytest.fixture
def config(desk_home: Path, tiny_config: dict[str, Any]) -> dict[str, Any]:
    model = tiny_config["model"] | {"device": DEVICE, "quantization": "nf4"}
    return tiny_config | {
        "model": model,
        "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
        "run": {"steps": 4, "checkpoint_every": 2, "keep_checkpoints": 9},
    }


@pytest.fixture
def run(config: dict[str, Any]) -> RunDirectory:
    return train(create_run(resolve(config), "trained"))


@pytest.mark.parametrize("algorithm", METHODS)
def test_each_method_takes_a_step(config: dict[str, Any], algorithm: str) -> None:
    warm = {"warm_start.solutions": 4, "warm_start.epochs": 1}
    changes = {"algorithm.name": algorithm, "run.steps": 1, "evaluation.problems": 0, **warm}
    if METHODS[algorithm].reuses(METHODS[algorithm].complete({})):
        changes["algorithm.updates_per_rollout"] = 2
    delta = RunReader(train(create_run(resolve(config, changes), algorithm))).poll()
    assert [step for step, _, _ in delta.metrics] == [1]
    assert [event.kind for event in delta.events if event.kind in ("not_finite", "oom")] == []


@pytest.mark.usefixtures("same_bits")
@pytest.mark.filterwarnings("ignore:.*deterministic:UserWarning")
def test_a_run_continues_from_any_checkpoint_as_if_it_had_not_stopped(config: dict[str, Any]) -> None:
    run = train(create_run(resolve(config), "trained"))
    half = train(create_run(resolve(config, {"run.steps": 2, "optimizer.schedule": "constant"}), "half"))
    whole = train(create_run(resolve(config, {"optimizer.schedule": "constant"}), "whole"))
    half.replan(4)
    assert weights(train(half), 4) == weights(whole, 4)
    fork = launch.fork(run, launch.kept_checkpoint(run, 2), launch.forked_config(run, 2, {}), "fork", NOBODY)
    assert weights(train(fork), 4) == weights(run, 4)


def test_a_run_begins_from_an_adapter(config: dict[str, Any], run: RunDirectory) -> None:
    changes = {"lora.start_from": str(list_checkpoints(run.checkpoints)[0].adapter), "run.steps": 2}
    begun = train(create_run(resolve(config, changes), "begun"))
    assert [step for step, _, _ in RunReader(begun).poll().metrics] == [1, 2]


COMMANDS: dict[str, list[str]] = {
    "eval": ["eval", "trained", "--problems", "4", "--json"],
    "chat": ["chat", "trained", "--prompt", "What is 2 + 2?", "--max-new-tokens", "6", "--json"],
    "adapter": ["export", "trained", "--format", "adapter", "--to", "out", "--json"],
    "merged": ["export", "trained", "--format", "merged", "--to", "out", "--json"],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_command_answers(run: RunDirectory, tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aapo_desk", *arguments, "--offline"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)
    assert "Traceback" not in done.stderr
