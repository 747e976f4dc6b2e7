"""Dr. GRPO, GRPO done right (arXiv 2503.20783; authors' code: sail-sg/understand-r1-zero).

    advantage   A[i] = r[i] - mean                     no division by std: it would overweight easy and hard problems
    ratio       w    = exp(lp - old)
    loss        L    = mean over rows of the row's token sum of
                       max(-A w, -A clip(w, 1 - epsilon_low, 1 + epsilon_high)) + beta k3, divided by max_tokens
                k3   = exp(ref - lp) - (ref - lp) - 1

The divisor is a constant, the longest completion allowed, so that a long wrong answer is not penalised less per token.

Deviations from the authors' code: unscorable completions are left out of the mean and of the rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aapo_desk.algorithms import base
from aapo_desk.algorithms.base import Advantages, Algorithm, Batch, group_advantage, per_row


def make(max_tokens: float, epsilon_low: float = 0.2, epsilon_high: float = 0.2, beta: float = 0.0) -> Algorithm:
    def advantages(batch: Batch) -> Advantages:
        return Advantages.without_margin(group_advantage(batch.rewards, scale=False))

    def loss(logps: Tensor, batch: Batch, advantages: Advantages) -> Tensor:
        ratio = torch.exp(base.log_ratio(logps, batch))
        terms = base.clipped(per_row(advantages.total), ratio, 1 - epsilon_low, 1 + epsilon_high)
        if beta:
            terms = terms + beta * base.k3(logps, batch)
        return base.mean_over_rows(base.row_sums(terms, batch) / max_tokens, batch)

    return Algorithm(
        "dr_grpo",
        advantages,
        loss,
        needs_old_logps=True,
        needs_reference_logps=beta > 0,
        gradient_needs_logps=beta > 0,
    )
