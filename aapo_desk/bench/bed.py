"""The common setup of all measurements: a run's own context, the same prompts in every step, long completions."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from aapo_desk.bench.jobs import Job
from aapo_desk.config import RunConfig
from aapo_desk.models.policy import Policy
from aapo_desk.store import RunWriter, create_run
from aapo_desk.tasks.order import step_problems
from aapo_desk.training.context import TrainContext
from aapo_desk.training.control import Control
from aapo_desk.training.setup import describe, prepared

NEVER_DRAWN = -1
"""An end-of-sequence token id that is never sampled, so that every completion reaches its maximum length."""


@contextmanager
def context_of(job: Job) -> Iterator[TrainContext]:
    """Prepare the context of a training step as the trainer does, for a measurement.

    Every step uses the prompts of a run's first step. The adapter's B matrices are random, as they would be after some
    training, because with B at zero there would be nothing to compute.
    """
    run = create_run(job.config)
    with Control(run, job.config.run.steps) as control:
        store = RunWriter(run)
        try:
            with prepared(job.config, store, control, probed=False, instead=job.choices) as found:
                context = found.context
                chosen = first_step(len(context.train), job.config)
                context.train = [context.train[index] for index in chosen]
                context.prompts = [context.prompts[index] for index in chosen]
                context.policy.eos_ids = (NEVER_DRAWN,)
                train_a_little(context.policy)
                yield context
        finally:
            store.close()


def first_step(count: int, config: RunConfig) -> list[int]:
    """Return the indices of the problems in a run's first step, of ``count`` problems in all."""
    return step_problems(count, config.rollout.prompts_per_step, 1, config.run.seed)


def train_a_little(policy: Policy) -> None:
    """Fill the adapter's B matrices with small random numbers that are the same in every process."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.adapter_parameters().items():
        if "lora_B" in name:
            parameter.data = (0.01 * torch.randn(parameter.shape, generator=generator)).to(parameter)


def about(job: Job, device: torch.device, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the device, the versions of the libraries and the shape of the workload."""
    rollout = job.config.rollout
    return {
        "device": device_name(device),
        "versions": describe(job.config, "transformers")["versions"],
        "shape": {
            "model": job.config.model.id,
            "quantization": job.config.model.quantization,
            "lora_r": job.config.lora.r,
            "prompts": rollout.prompts_per_step,
            "prompt_tokens": [len(prompt) for prompt in prompts],
            "group_size": rollout.group_size,
            "new_tokens": rollout.max_new_tokens,
        },
    }


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or that of the CPU with the number of threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
    name = found[1] if found else platform.machine()
    return f"{name}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
