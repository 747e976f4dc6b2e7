"""Updates without a rollout, on completions of random tokens, to measure the memory that an update takes."""

from __future__ import annotations

import time

import torch

from aapo_desk.bench.bed import about, parts_of
from aapo_desk.bench.jobs import Job, Measured
from aapo_desk.models.loading import choose_device
from aapo_desk.training.parts import Parts
from aapo_desk.training.passes import Rollout
from aapo_desk.training.peaks import Peaks, held_mb
from aapo_desk.training.update import update


def measure(job: Job) -> Measured:
    """Measure the seconds of each update, and ``added_mb``, the peak above the memory held before the first update."""
    device = choose_device(job.config.model.device)
    peaks = Peaks(device)
    steps = []
    with parts_of(job) as parts:
        rollout = made_up(parts)
        before = held_mb(device)
        peaks.enter("update")
        for _ in range(job.warm_up + job.steps):
            steps.append({"seconds": update_once(parts, rollout)})
        found = peaks.read()
        counted = [step | {"added_mb": found["update"] - before} for step in steps[job.warm_up :]]
        return Measured(counted, found, about(job, device, parts.prompts))


def made_up(parts: Parts) -> Rollout:
    """Return a rollout whose completions are random tokens, all of the maximum length."""
    rollout = parts.config.rollout
    words = parts.policy.causal.get_output_embeddings().weight.shape[0]
    prompts = [prompt for prompt in parts.prompts for _ in range(rollout.group_size)]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(words, (len(prompts), rollout.max_new_tokens), generator=generator)
    return Rollout(prompts, tokens.tolist(), rollout.temperature, rollout.group_size)


def update_once(parts: Parts, rollout: Rollout) -> float:
    """Do one update in which every row has an advantage, and return its seconds."""
    generator = torch.Generator().manual_seed(1)
    rewards, reference = torch.rand(
        2, len(parts.prompts), rollout.group_size, generator=generator, dtype=torch.float64
    ).unbind()
    started = time.perf_counter()
    update(
        parts.policy,
        parts.optimizer,
        parts.algorithm,
        rollout,
        rewards,
        reference if parts.algorithm.needs_reference_rewards else None,
        rate=parts.config.optimizer.learning_rate,
        max_grad_norm=parts.config.optimizer.max_grad_norm,
        token_budget=parts.choices["token_budget"],
        cost=parts.cost if parts.choices["share_prompts"] else None,
        scale=parts.scale,
    )
    return time.perf_counter() - started
