"""GRPO, Group Relative Policy Optimization (arXiv 2402.03300).

    advantage   A[i] = (r[i] - mean) / (std + 1e-4), or r[i] - mean without scale_rewards
    ratio       w    = exp(lp - old)
    loss        L    = mean over rows of the row's token mean of
                       max(-A w, -A clip(w, 1 - epsilon_low, 1 + epsilon_high)) + beta k3
                k3   = exp(ref - lp) - (ref - lp) - 1

Deviations from the paper: beta defaults to 0 (now the usual choice), and unscorable completions are left out. If the
policy that sampled is the one being updated, w = 1 and, without beta, the gradient needs no log-probs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aapo_desk.algorithms import base
from aapo_desk.algorithms.base import Advantages, Algorithm, Batch, group_advantage, per_row


def make(
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    beta: float = 0.0,
    scale_rewards: bool = True,
    std_eps: float = 1e-4,
) -> Algorithm:
    def advantages(batch: Batch) -> Advantages:
        return Advantages.without_margin(group_advantage(batch.rewards, scale_rewards, std_eps))

    def loss(logps: Tensor, batch: Batch, advantages: Advantages) -> Tensor:
        ratio = torch.exp(base.log_ratio(logps, batch))
        terms = base.clipped(per_row(advantages.total), ratio, 1 - epsilon_low, 1 + epsilon_high)
        if beta:
            terms = terms + beta * base.k3(logps, batch)
        return base.mean_over_rows(base.row_means(terms, batch), batch)

    return Algorithm(
        "grpo",
        advantages,
        loss,
        needs_old_logps=True,
        needs_reference_logps=beta > 0,
        gradient_needs_logps=beta > 0,
    )
