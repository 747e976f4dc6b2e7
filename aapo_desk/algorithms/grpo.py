"""GRPO, Group Relative Policy Optimization (arXiv 2402.03300).

    advantage   A[i] = (r[i] - mean) / (std + 1e-4), or r[i] - mean without scale_rewards
    ratio       w    = exp(lp - old)
    loss        L    = mean over rows of the row's token mean of
                       max(-A w, -A clip(w, 1 - eps_low, 1 + eps_high)) + beta k3
                k3   = exp(ref - lp) - (ref - lp) - 1

Deviations from the paper: beta is 0 unless asked for (the field's custom since), and unscorable completions are left
out. Where the policy that samples is the one that is updated, w = 1 and, without beta, the gradient needs no log-probs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aapo_desk.algorithms.base import Advantages, Algorithm, Batch, group_advantage, per_row


def make(
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    beta: float = 0.0,
    scale_rewards: bool = True,
    std_eps: float = 1e-4,
) -> Algorithm:
    def advantages(batch: Batch) -> Advantages:
        group = group_advantage(batch.rewards, scale_rewards, std_eps)
        return Advantages(group, torch.zeros_like(group))

    def loss(logps: Tensor, batch: Batch, advantages: Advantages) -> Tensor:
        old = logps.detach() if batch.old_logps is None else batch.old_logps
        counted = batch.counted
        # Outside the mask anything may stand; it must not reach exp, whose overflow times 0 is NaN.
        inside = counted > 0
        ratio = torch.exp(torch.where(inside, logps - old, 0.0))
        advantage = per_row(advantages.total)
        terms = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - epsilon_low, 1 + epsilon_high))
        if beta:
            assert batch.reference_logps is not None
            gap = torch.where(inside, batch.reference_logps - logps, 0.0)
            terms = terms + beta * (torch.exp(gap) - gap - 1)
        tokens = counted.sum(1)
        means = (counted * terms).sum(1) / tokens.clamp(min=1)
        return means.sum() / (tokens > 0).sum().clamp(min=1)

    return Algorithm("grpo", advantages, loss, needs_reference_logps=beta > 0, gradient_needs_logps=beta > 0)
