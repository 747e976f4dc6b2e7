"""A run with figures, as a trainer would have left it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from aapo_desk.config import RunConfig, resolve
from aapo_desk.store import RunDirectory, RunWriter, StepRecord, create_run

BEGIN = time.time() + 3600  # later than every event that these tests write


def config(steps: int = 12) -> RunConfig:
    return resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}, "run": {"steps": steps}})


def record(step: int, **metrics: float) -> StepRecord:
    values = {"reward": step / 12, "reference_reward": 0.1, "advantage_abs": 0.8, "teaching": 0.9, "grad_norm": 0.4}
    values |= {"completion_tokens": 5.0, "seconds_rollout": 2.5} | metrics
    return StepRecord(step, BEGIN + 10 * step, values, {}, [])


def answers(accuracy: float) -> dict[str, Any]:
    low, high = accuracy - 0.1, accuracy + 0.1
    return {"accuracy": accuracy, "low": low, "high": high, "readable": 1.0, "unscorable": 0, "scores": [1.0, 0.0]}


def evaluation(greedy: float, difference: float | None = None) -> dict[str, Any]:
    change = None if difference is None else {"mean": difference, "low": difference - 0.1, "high": difference + 0.1}
    return {
        "problems": 100,
        "greedy": answers(greedy),
        "sampled": answers(greedy - 0.1),
        "difference": change,
        "difference_sampled": change,
        "seconds": 3.0,
    }


def status(run: RunDirectory, state: str, **more: Any) -> None:
    run.status.write_text(json.dumps({"state": state, "step": 12, "steps": 12, "heartbeat": 0, "message": ""} | more))


def write_finished(run: RunDirectory) -> RunWriter:
    """Twelve steps that came to their end, with an evaluation before, half-way and after. The writer is left open."""
    writer = RunWriter(run)
    writer.write_event("started", 0)
    writer.write_evaluation(0, "held_out", evaluation(0.3))
    for step in range(1, 13):
        writer.write_step(record(step))
        if step in (6, 12):
            writer.write_evaluation(step, "held_out", evaluation(0.3 + step / 30, step / 30))
    writer.write_event("finished", 12, adapter="checkpoints/step_000012/adapter", best=6)
    for step in (6, 12):
        adapter = run.checkpoints / f"step_{step:06}" / "adapter"
        adapter.mkdir(parents=True)
        (adapter / "adapter_config.json").write_text("{}")
    status(run, "finished")
    return writer


@pytest.fixture
def finished() -> Iterator[RunDirectory]:
    """A run of 12 steps that came to its end, with an evaluation before, half-way and after."""
    run = create_run(config(), "sums")
    writer = write_finished(run)
    yield run
    writer.close()
