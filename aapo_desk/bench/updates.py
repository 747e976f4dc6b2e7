"""Updates without a rollout, on completions of random tokens, to measure the memory that an update takes."""

from __future__ import annotations

import time

import torch

from aapo_desk.bench.bed import about, context_of
from aapo_desk.bench.jobs import Job, Measured
from aapo_desk.models.loading import choose_device
from aapo_desk.training.context import TrainContext
from aapo_desk.training.device.allocator import Peaks, held_mb
from aapo_desk.training.forward import Rollout
from aapo_desk.training.update import update


def measure(job: Job) -> Measured:
    """Measure the seconds of each update, and ``added_mb``, the peak above the memory held before the first update."""
    device = choose_device(job.config.model.device)
    peaks = Peaks(device)
    steps = []
    with context_of(job) as context:
        rollout = made_up(context)
        before = held_mb(device)
        peaks.enter("update")
        for _ in range(job.warm_up + job.steps):
            steps.append({"seconds": update_once(context, rollout)})
        found = peaks.read()
        counted = [step | {"added_mb": found["update"] - before} for step in steps[job.warm_up :]]
        return Measured(counted, found, about(job, device, context.prompts))


def made_up(context: TrainContext) -> Rollout:
    """Return a rollout whose completions are random tokens, all of the maximum length."""
    rollout = context.config.rollout
    words = context.policy.causal.get_output_embeddings().weight.shape[0]
    prompts = [prompt for prompt in context.prompts for _ in range(rollout.group_size)]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(words, (len(prompts), rollout.max_new_tokens), generator=generator)
    return Rollout(prompts, tokens.tolist(), rollout.temperature, rollout.group_size)


def update_once(context: TrainContext, rollout: Rollout) -> float:
    """Do one update in which every row has an advantage, and return its seconds."""
    generator = torch.Generator().manual_seed(1)
    rewards, reference = torch.rand(
        2, len(context.prompts), rollout.group_size, generator=generator, dtype=torch.float64
    ).unbind()
    started = time.perf_counter()
    update(
        context.policy,
        context.optimizer,
        context.algorithm,
        rollout,
        rewards,
        reference if context.algorithm.needs_reference_rewards else None,
        rate=context.config.optimizer.learning_rate,
        max_grad_norm=context.config.optimizer.max_grad_norm,
        token_budget=context.choices["token_budget"],
        cost=context.cost if context.choices["share_prompts"] else None,
        scale=context.scale,
    )
    return time.perf_counter() - started
