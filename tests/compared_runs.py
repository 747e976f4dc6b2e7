"""Runs to compare, the same each time: written by the real store, their events put to fixed times."""

from __future__ import annotations

import json
import math
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from aapo_desk.config import resolve
from aapo_desk.evaluation import paired_difference, proportion
from aapo_desk.store import RunDirectory, RunWriter, StepRecord, create_run

BEGAN = 1_767_348_000.0  # 2026-01-02 10:00:00 UTC
PROBLEMS = 100


def write_run(
    name: str,
    steps: int = 40,
    overrides: dict[str, Any] | None = None,
    middle: float = 16.0,
    seconds: float = 6.0,
    right: tuple[int, int] | None = (27, 75),
    pinned: bool = False,
    state: str = "finished",
) -> RunDirectory:
    """A run whose reward rises around the step ``middle``, a step taking so many seconds.

    ``right``: of ``PROBLEMS`` held-out ones before and after; None where nothing was evaluated.
    """
    settings = {
        "model": {"id": "owner/SmolLM2-135M-Instruct"},
        "task": {"source": "arithmetic"},
        "rollout": {"prompts_per_step": 4, "group_size": 8},
        "run": {"steps": 40},
    }
    run = create_run(resolve(settings, overrides))
    run.meta.write_text(json.dumps({"name": name, "pinned": pinned, "notes": ""}))
    run.status.write_text(json.dumps({"state": state, "step": steps, "steps": 40, "heartbeat": 0, "message": ""}))
    writer = RunWriter(run)
    writer.write_event("started", 0)
    for step in range(1, steps + 1):
        writer.write_step(StepRecord(step, BEGAN + step * seconds, metrics(step, middle), {}, []))
    if right is not None:
        base = evaluation(right[0])
        writer.write_evaluation(0, "held_out", base)
        writer.write_evaluation(steps, "held_out", evaluation(right[1], base))
    writer.close()
    put_events(run, [BEGAN])
    return run


def metrics(step: int, middle: float) -> dict[str, float]:
    noise = random.Random(step * 1000 + middle).uniform(-0.07, 0.07)
    reward = min(1.0, max(0.0, 0.1 + 0.7 / (1 + math.exp((middle - step) / 4)) + noise))
    return {"reward": reward, "reference_reward": 0.1, "entropy": 1.2 - step / 50, "completion_tokens": 3.5}


def put_events(run: RunDirectory, times: Sequence[float]) -> None:
    """The run's events, stamped by the clock on the wall, at these times."""
    with closing(sqlite3.connect(run.database)) as connection, connection:
        for number, when in enumerate(times, start=1):
            connection.execute("UPDATE events SET time = ? WHERE id = ?", (when, number))


def evaluation(right: int, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """The first ``right`` problems answered right."""
    scores = [1.0] * right + [0.0] * (PROBLEMS - right)
    share = proportion(scores)
    gain = paired_difference(base["greedy"]["scores"], scores).as_json() if base else None
    answers = {"accuracy": share.mean, "low": share.low, "high": share.high, "scores": scores}
    return {
        "problems": PROBLEMS,
        "ids": [f"held-out-{number}" for number in range(PROBLEMS)],
        "greedy": answers,
        "sampled": answers,
        "difference": gain,
        "difference_sampled": gain,
    }
