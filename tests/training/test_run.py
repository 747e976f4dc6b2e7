"""The real background process on a tiny model in NF4: run, stop, resume, pause, fail. Kills are in tests/faults."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import resolve
from aapo_desk.store import RunDirectory, RunReader, create_run
from tests.faults.injecting import ask
from tests.training.in_process import train

STEPS = 14


@pytest.fixture
def config(tiny_config: dict[str, Any]) -> dict[str, Any]:
    return tiny_config | {
        "model": tiny_config["model"] | {"quantization": "nf4"},
        "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
        "run": {"steps": STEPS, "checkpoint_every": 4, "keep_checkpoints": 9},
        "evaluation": {"problems": 8, "every": 5},
    }


def new_run(config: dict[str, Any], name: str) -> RunDirectory:
    return create_run(resolve(config), name)


@contextmanager
def trainer(run: RunDirectory) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "aapo_desk.training", str(run.path)]
    with (
        run.log.open("ab") as log,
        subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def finish(run: RunDirectory) -> None:
    with trainer(run) as process:
        assert process.wait(120) == 0, run.log.read_text()


def wait_for(run: RunDirectory, happened: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, run.log.read_text()
        time.sleep(0.005)


def written_step(run: RunDirectory) -> int:
    last = RunReader(run).last_metrics()
    return last[0] if last else 0


def adapter(run: RunDirectory, step: int = STEPS) -> bytes:
    return (run.checkpoints / f"step_{step:06d}" / "adapter" / "adapter_model.safetensors").read_bytes()


def metrics_without_clocks(run: RunDirectory) -> list[tuple[int, dict[str, Any]]]:
    clocks = ("seconds_", "tokens_per_second", "memory_mb")
    return [
        (step, {key: value for key, value in data.items() if not key.startswith(clocks)})
        for step, _, data in RunReader(run).poll().metrics
    ]


def test_the_adapter_moves_and_every_number_is_there(desk_home: Path, config: dict[str, Any]) -> None:
    rewards = [{"name": "math"}, *config["rewards"]]
    run = train(new_run(config | {"rewards": rewards, "run": {"steps": 3}}, "numbers"))
    reader = RunReader(run)
    delta = reader.poll()
    wanted = {
        "reward", "reward_std", "reference_reward", "advantage_abs", "margin", "margin_low_share", "margin_high_share",
        "teaching_group", "teaching", "loss", "entropy", "grad_norm", "update_norm", "learning_rate",
        "completion_tokens", "truncated", "unscorable", "logp_gap", "tokens_per_second", "seconds_rollout",
        "seconds_reward", "seconds_update", "memory_mb", "reward/math", "reward/format", "sampled_completions",
    }  # fmt: skip
    for _, _, metrics in delta.metrics:
        assert metrics.keys() == wanted
        assert all(value is not None for value in metrics.values())
    assert max(metrics["update_norm"] or 0 for _, _, metrics in delta.metrics) > 0
    histograms = reader.histograms(2)
    assert histograms.keys() == {
        "group_advantage", "margin", "advantage", "reward", "reference_reward", "completion_tokens",
    }  # fmt: skip
    assert all(sum(histogram.counts) == 8 for histogram in histograms.values())
    samples = reader.samples(1)
    assert [sample.is_reference for sample in samples[:4]] == [False, True, False, True]
    assert all(sample.advantage == pytest.approx(sample.group_advantage + sample.margin) for sample in samples[::2])  # type: ignore[operator]
    assert [event.kind for event in delta.events] == ["probe", "started", "checkpoint", "finished"]


@pytest.mark.slow
def test_sigterm_and_sigint_checkpoint_and_end_and_a_resume_goes_on(desk_home: Path, config: dict[str, Any]) -> None:
    whole, stopped = train(new_run(config, "whole")), new_run(config, "stopped")
    with trainer(stopped) as process:
        wait_for(stopped, lambda: written_step(stopped) >= 2)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):  # repeated signals change nothing
            process.send_signal(number)
            time.sleep(0.01)
        assert process.wait(60) == 0
    assert stopped.read_status()["state"] == "stopped"
    last = written_step(stopped)
    assert 2 <= last < STEPS
    assert (stopped.checkpoints / f"step_{last:06d}").is_dir()
    train(stopped)
    assert adapter(stopped) == adapter(whole)


@pytest.mark.slow
def test_pause_resume_checkpoint_and_stop_are_done_on_request(desk_home: Path, config: dict[str, Any]) -> None:
    # No evaluation, because that would write a checkpoint of its own.
    changes = {"run": {"steps": 100_000, "checkpoint_every": 100_000}, "evaluation": {"problems": 0}}
    run = new_run(config | changes, "asked")
    with trainer(run) as process:
        wait_for(run, lambda: written_step(run) >= 1)
        ask(run, "pause")
        wait_for(run, lambda: run.read_status()["state"] == "paused")
        paused_at = written_step(run)
        ask(run, "checkpoint")
        wait_for(run, lambda: (run.checkpoints / f"step_{paused_at:06d}").is_dir())
        assert written_step(run) == paused_at
        ask(run, "resume")
        wait_for(run, lambda: written_step(run) > paused_at)
        ask(run, "stop")
        assert process.wait(60) == 0
    # A random model that gets far enough raises alarms, which are not the subject of this test.
    kinds = [event.kind for event in RunReader(run).poll().events if not event.kind.startswith("alarm")]
    assert kinds == ["probe", "started", "paused", "checkpoint", "unpaused", "checkpoint", "stopped"]
    assert not list(run.commands.iterdir())


def test_two_trainers_of_one_run_are_not_possible(desk_home: Path, config: dict[str, Any]) -> None:
    run = new_run(config | {"run": {"steps": 100_000}}, "contested")
    with trainer(run) as first:
        wait_for(run, lambda: run.read_status().get("pid") == first.pid)
        command = [sys.executable, "-m", "aapo_desk.training", str(run.path)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert "another trainer is already running" in second.stderr
        assert first.poll() is None


@pytest.mark.slow
def test_a_run_that_fails_says_why(desk_home: Path, config: dict[str, Any], tmp_path: Path) -> None:
    broken = tmp_path / "broken-model"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    run = new_run(config | {"model": config["model"] | {"id": str(broken)}}, "failing")
    with trainer(run) as process:
        assert process.wait(60) == 1
    status = run.read_status()
    assert status["state"] == "failed"
    assert str(broken) in status["message"]
    assert RunReader(run).poll().events[-1].kind == "failed"
    assert "Traceback" in run.log.read_text()


@pytest.mark.slow
def test_grpo_samples_no_reference_and_no_compiler_is_loaded_for_it(
    desk_home: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    run = new_run(config | {"algorithm": {"name": "grpo", "options": {"beta": 0.1}}, "run": {"steps": 2}}, "grpo")
    finish(run)
    reader = RunReader(run)
    assert not any(sample.is_reference for sample in reader.samples(1))
    assert reader.poll().metrics[0][2]["reference_reward"] is None
    imported = set(re.findall(r"^import time: .*\| +([\w.]+)$", run.log.read_text(), flags=re.MULTILINE))
    assert "bitsandbytes.backends.default.ops" in imported
    assert "torch._inductor.compile_fx" not in imported
