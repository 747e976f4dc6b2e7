"""RLOO, REINFORCE Leave-One-Out (arXiv 2402.14740; code: trl's RLOOTrainer).

    reward      R[i] = r[i] - beta sum(old - ref)                  the whole completion is one action
    advantage   A[i] = R[i] - mean of the others' R
    loss        reinforce   L = -mean over rows of A s             s: the sum of the row's lp
                ppo_seq     L = mean over rows of max(-A w, -A clip(w, 1 - epsilon_low, 1 + epsilon_high)),
                                w = exp(s - s_old)

Only ``ppo_seq`` may update more than once per rollout, since ``reinforce`` has no ratio.

Deviations from the code: beta defaults to 0; unscorable completions are left out, also from the mean of the others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aapo_desk.algorithms import base
from aapo_desk.algorithms.base import Advantages, Algorithm, Batch, leave_one_out, per_row


def make(
    variant: str = "reinforce", epsilon_low: float = 0.2, epsilon_high: float = 0.2, beta: float = 0.0
) -> Algorithm:
    def advantages(batch: Batch) -> Advantages:
        rewards = batch.rewards
        if beta:
            assert batch.old_logps is not None
            assert batch.reference_logps is not None
            apart = base.difference(batch.old_logps, batch.reference_logps, batch)
            rewards = rewards - beta * base.row_sums(apart, batch).reshape(rewards.shape)
        return Advantages.without_margin(leave_one_out(rewards))

    def loss(logps: Tensor, batch: Batch, advantages: Advantages) -> Tensor:
        advantage = advantages.total.reshape(-1)
        if variant == "reinforce":
            return base.mean_over_rows(base.row_sums(-logps * per_row(advantages.total), batch), batch)
        ratio = torch.exp(base.row_sums(base.log_ratio(logps, batch), batch))
        return base.mean_over_rows(base.clipped(advantage, ratio, 1 - epsilon_low, 1 + epsilon_high), batch)

    return Algorithm(
        "rloo",
        advantages,
        loss,
        needs_old_logps=variant == "ppo_seq" or beta > 0,
        needs_reference_logps=beta > 0,
        gradient_needs_logps=beta > 0,
    )
