"""Complete training steps of ours: rollout, reward, update."""

from __future__ import annotations

import time

from aapo_desk.bench.bed import about, context_of
from aapo_desk.bench.jobs import Job, Measured
from aapo_desk.models.loading import choose_device
from aapo_desk.training.device.allocator import Peaks
from aapo_desk.training.step import run_step

PARTS = ("seconds_rollout", "seconds_reward", "seconds_update")


def measure(job: Job) -> Measured:
    """Measure the seconds of each step and its phases, the length of its completions, and the share of rows that teach.

    A row teaches if it has a non-zero advantage.
    """
    peaks = Peaks(choose_device(job.config.model.device))
    steps = []
    with context_of(job) as context:
        for number in range(1, job.warm_up + job.steps + 1):
            started = time.perf_counter()
            result = run_step(context, number, peaks.enter)
            seconds = time.perf_counter() - started
            metrics = result.record.metrics
            kept = {name: metrics[name] for name in (*PARTS, "completion_tokens", "teaching")}
            steps.append({"seconds": seconds, **kept})
        said = about(job, context.policy.device, context.prompts) | {"choices": dict(context.choices)}
        return Measured(steps[job.warm_up :], peaks.read(), said)
