"""What every measurement stands on: a run's own context, the same prompts in each step, the longest completions."""

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
"""As the token that ends a completion: every completion runs to its longest."""


@contextmanager
def context_of(job: Job) -> Iterator[TrainContext]:
    """The context of a step as the trainer prepares them, for a measurement.

    Every step has the prompts of a run's first step. The adapter's B is random, as it would be after some training:
    at zero it would give nothing to compute.
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
    """The problems of a run's first step."""
    return step_problems(count, config.rollout.prompts_per_step, 1, config.run.seed)


def train_a_little(policy: Policy) -> None:
    """Small random numbers in the adapter's B, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.adapter_parameters().items():
        if "lora_B" in name:
            parameter.data = (0.01 * torch.randn(parameter.shape, generator=generator)).to(parameter)


def about(job: Job, device: torch.device, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The device, the versions and the shape of the work."""
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
    """The card's name, or the processor's and how many threads torch gives it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
    name = found[1] if found else platform.machine()
    return f"{name}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
