"""The plain rollout: a call of transformers' ``generate`` for the policy, then one for the reference."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from transformers import GenerationConfig

from aapo_desk.bench.bed import about, context_of
from aapo_desk.bench.jobs import Job, Measured
from aapo_desk.models.loading import choose_device
from aapo_desk.training.context import TrainContext
from aapo_desk.training.device.allocator import Peaks


def measure(job: Job) -> Measured:
    """Measure the seconds for sampling the completions of policy and reference."""
    peaks = Peaks(choose_device(job.config.model.device))
    steps = []
    with context_of(job) as context:
        peaks.enter("rollout")
        for _ in range(job.warm_up + job.steps):
            started = time.perf_counter()
            own = complete(context)
            with context.policy.as_reference():
                complete(context)
            steps.append({"seconds": time.perf_counter() - started, "completion_tokens": float(own.shape[1])})
        return Measured(steps[job.warm_up :], peaks.read(), about(job, context.policy.device, context.prompts))


@torch.no_grad()
def complete(context: TrainContext) -> Tensor:
    """Return completions [B, T] on the CPU, sampled as configured and all of the maximum length."""
    policy, rollout = context.policy, context.config.rollout
    longest = max(map(len, context.prompts))
    prompts = [prompt for prompt in context.prompts for _ in range(rollout.group_size)]
    ids = torch.tensor([[policy.pad_id] * (longest - len(prompt)) + prompt for prompt in prompts])
    seen = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    settings = GenerationConfig(
        max_new_tokens=rollout.max_new_tokens,
        min_new_tokens=rollout.max_new_tokens,
        do_sample=True,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        top_k=rollout.top_k,
        eos_token_id=context.policy.tokenizer.eos_token_id,
        pad_token_id=policy.pad_id,
    )
    out: Tensor = policy.model.generate(
        input_ids=ids.to(policy.device), attention_mask=seen.to(policy.device), generation_config=settings
    )
    return out[:, longest:].cpu()
