"""A run of any length on disk for UI measurements, written by the trainer's own writer in few transactions."""

from __future__ import annotations

import fcntl
import json
import math
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from aapo_desk.config import RunConfig, resolve
from aapo_desk.store import Histogram, RunDirectory, RunWriter, Sample, StepRecord, create_run, write_atomically
from aapo_desk.store.unscorable import UNSCORABLE_AS, WRONG

STEPS_AT_ONCE = 2000
STEP_SECONDS = 4.0
BINS = 24
PAIRS = 4  # pairs of completions saved for each step
HISTOGRAMS = {
    "group_advantage": (-2.475, 2.475),
    "margin": (-0.2, 0.28),
    "advantage": (-2.675, 2.755),
    "reward": (0.0, 1.0),
    "reference_reward": (0.0, 1.0),
    "completion_tokens": (0.0, 12.0),
}


def config(steps: int) -> RunConfig:
    return resolve(
        {
            "model": {"id": "bench/long-run"},
            "task": {"source": "arithmetic"},
            "rewards": [{"name": "math"}],
            "run": {"steps": 2 * steps},
            "evaluation": {"every": max(1, steps // 20), "problems": 100},
        }
    )


def write_run(name: str, steps: int) -> RunDirectory:
    """Write a run that was stopped after ``steps`` steps, half of those planned, into the home of this process."""
    run = create_run(config(steps), name)
    writer = RunWriter(run)
    writer.write_event("started", 0)
    for first in range(1, steps + 1, STEPS_AT_ONCE):
        last = min(steps, first + STEPS_AT_ONCE - 1)
        writer.write_steps(record(step, steps) for step in range(first, last + 1))
        writer.write_event("checkpoint", last, path=f"checkpoints/step_{last:06d}")
    for step in range(0, steps + 1, max(1, steps // 20)):
        writer.write_evaluation(step, "held_out", evaluation(step / steps))
    writer.write_event("stopped", steps)
    writer.close()
    write_status(run, "stopped", steps)
    run.log.write_text("".join(f"step {step}\n" for step in range(max(1, steps - 300), steps + 1)), encoding="utf-8")
    return run


def record(step: int, steps: int) -> StepRecord:
    """Return the metrics, histograms and samples of a step, as many as a small run saves."""
    chance = random.Random(step)
    reward = 0.1 + 0.7 / (1 + math.exp(-8 * (step / steps - 0.4))) + chance.uniform(-0.1, 0.1)
    metrics = {
        "reward": reward,
        "reward_std": 0.3 + chance.uniform(-0.1, 0.1),
        "reference_reward": 0.1 + chance.uniform(-0.07, 0.07),
        "advantage_abs": 0.8 + chance.uniform(-0.3, 0.3),
        "margin": chance.uniform(-0.1, 0.2),
        "margin_low_share": chance.random() / 4,
        "margin_high_share": chance.random() / 2,
        "teaching_group": 0.6 + chance.uniform(-0.3, 0.3),
        "teaching": 0.8 + chance.uniform(-0.2, 0.2),
        "loss": chance.uniform(-0.1, 0.1),
        "entropy": 1.2 - step / steps + chance.uniform(-0.1, 0.1),
        "grad_norm": chance.uniform(0.2, 0.9),
        "update_norm": chance.uniform(0.005, 0.02),
        "learning_rate": 1e-4 * (1 - step / (2 * steps)),
        "completion_tokens": chance.uniform(3, 8),
        "truncated": chance.random() / 10,
        "unscorable": 0.0,
        "logp_gap": chance.uniform(1e-4, 1e-3),
        "tokens_per_second": chance.uniform(35, 45),
        "seconds_rollout": chance.uniform(2, 2.5),
        "seconds_reward": chance.uniform(0.1, 0.2),
        "seconds_update": chance.uniform(1, 1.5),
        "memory_mb": 1893.0,
        "reward/math": reward,
    }
    histograms = {name: Histogram(low, high, _counts(chance)) for name, (low, high) in HISTOGRAMS.items()}
    samples = [_sample(step, row, chance, is_reference) for row in range(PAIRS) for is_reference in (False, True)]
    return StepRecord(step, time.time() - STEP_SECONDS * max(0, steps - step), metrics, histograms, samples)


def _counts(chance: random.Random) -> list[int]:
    return [chance.getrandbits(3) for _ in range(BINS)]


def mark(step: int) -> str:
    """Return the prefix of a step's completions, by which they are recognized on the screen."""
    return f"({step})"


def _sample(step: int, row: int, chance: random.Random, is_reference: bool) -> Sample:
    a, b = 1 + step % 20, 1 + row
    right = chance.random() < 0.5
    return Sample(
        step=step,
        prompt_id=f"arithmetic-{a}-{b}",
        row=row,
        prompt=f"What is {a} + {b}? Answer with just the number.",
        completion=f"{mark(step)} {a + b if right else a + b + 1}",
        answer=str(a + b),
        reward=float(right),
        rewards={"math": float(right)},
        group_advantage=None if is_reference else 0.5,
        margin=None if is_reference else 0.1,
        advantage=None if is_reference else 0.6,
        tokens=4,
        truncated=False,
        is_reference=is_reference,
    )


def evaluation(share: float) -> dict[str, object]:
    """Return a held-out evaluation after a share (0 to 1) of the steps."""
    accuracy = 0.3 + 0.5 * share
    answers = {
        "accuracy": accuracy,
        "low": accuracy - 0.1,
        "high": accuracy + 0.1,
        "readable": 1.0,
        "unscorable": 0,
        UNSCORABLE_AS: WRONG,
    }
    difference = {"mean": 0.5 * share, "low": 0.5 * share - 0.1, "high": 0.5 * share + 0.1} if share else None
    return {
        "problems": 100,
        "greedy": answers | {"scores": [1.0, 0.0] * 50},
        "sampled": answers | {"scores": [1.0, 0.0] * 50},
        "difference": difference,
        "difference_sampled": difference,
        "seconds": 14.0,
    }


def write_status(run: RunDirectory, state: str, step: int) -> None:
    now = time.time()
    status = {
        "state": state,
        "phase": "rollout",
        "step": step,
        "steps": run.read_config().run.steps,
        "progress": 0.5,
        "message": "",
        "heartbeat": now,
        "started": now - STEP_SECONDS * step,
        "pid": os.getpid(),
        "host": socket.gethostname(),
    }
    write_atomically(run.status, json.dumps(status), durable=False)


@contextmanager
def trainer_of(run: RunDirectory) -> Iterator[Trainer]:
    """Hold the run's lock as its trainer would, and yield a stand-in for the trainer."""
    with run.lock.open("ab") as file, closing(RunWriter(run)) as writer:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield Trainer(run, writer)


class Trainer:
    """A stand-in for a trainer that does what the UI can see of one: it writes heartbeats and steps."""

    def __init__(self, run: RunDirectory, writer: RunWriter) -> None:
        self.run = run
        self._writer = writer
        self.step = writer.last_step()

    def beat(self) -> None:
        write_status(self.run, "running", self.step)

    def write_step(self) -> None:
        self.step += 1
        self._writer.write_step(record(self.step, self.step))
        self.beat()
