"""DAPO, Decoupled Clip and Dynamic Sampling Policy Optimization (arXiv 2503.14476; authors' code: verl, recipe/dapo).

    advantage   A[i] = (r[i] - mean) / (std + 1e-6), or r[i] - mean without scale_rewards
    ratio       w    = exp(lp - old)
    loss        L    = token mean over the step of max(-A w, -A clip(w, 1 - epsilon_low, 1 + epsilon_high))

Constant groups are left out of both sums of the mean (``filter_constant``); if no group is left, the loss is 0.

Dynamic sampling: the problems of constant groups are replaced by others, drawn with the run's seed, up to
``max_refills`` times per step. Groups that are still constant after that stay in the step and contribute no gradient.

Deviations from the authors' code:
1. The authors continue sampling until the wanted number of groups vary, and fail at a limit of 10 batches; here a step
   always has its P groups.
2. A group counts as constant if max == min over its total rewards, not by the standard deviation of its accuracy.
3. Each update is over the whole rollout, not over parts of it. Unscorable completions are left out.
4. The authors' penalty for long answers is the reward ``overlong`` here.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from aapo_desk.algorithms import base
from aapo_desk.algorithms.base import Advantages, Algorithm, Batch, group_advantage, per_row


def make(
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.28,
    filter_constant: bool = True,
    max_refills: int = 0,
    scale_rewards: bool = True,
    std_eps: float = 1e-6,
) -> Algorithm:
    def advantages(batch: Batch) -> Advantages:
        return Advantages.without_margin(group_advantage(batch.rewards, scale_rewards, std_eps))

    def loss(logps: Tensor, batch: Batch, advantages: Advantages) -> Tensor:
        if filter_constant:
            kept = base.varied(batch.rewards).expand_as(batch.rewards)
            batch = replace(batch, mask=batch.mask * per_row(kept))
        ratio = torch.exp(base.log_ratio(logps, batch))
        terms = base.clipped(per_row(advantages.total), ratio, 1 - epsilon_low, 1 + epsilon_high)
        return base.token_mean(terms, batch)

    return Algorithm("dapo", advantages, loss, needs_old_logps=True, max_refills=int(max_refills))
