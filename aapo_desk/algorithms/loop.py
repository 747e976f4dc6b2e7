"""LOOP, Leave-One-Out PPO (arXiv 2502.01600; authors' code: apple/ml-loop).

    advantage   A[i] = r[i] - mean of the others; with scale_rewards divided by max(std, 1e-7), where std is that of the
                       group's rewards, computed with divisor G
    ratio       w    = exp(lp - old) of a token, or of a whole row's sums (``ratio: trajectory``)
    loss        L    = sum over rows of the row's token mean of max(-A w, -A clip(w, 1/(1 + epsilon), 1 + epsilon)),
                       divided by ``loss_div_factor``; a trajectory has one such term

Deviations from the authors' code: the divisor defaults to the number of rows in the step; each update is over the whole
rollout, not over parts of it; unscorable completions are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aapo_desk.algorithms import base
from aapo_desk.algorithms.base import Advantages, Algorithm, Batch, leave_one_out, per_row


def make(
    rows: int,
    epsilon: float = 0.1,
    ratio: str = "token",
    loss_div_factor: float | None = None,
    scale_rewards: bool = False,
) -> Algorithm:
    divisor = loss_div_factor or rows

    def advantages(batch: Batch) -> Advantages:
        advantage = leave_one_out(batch.rewards)
        if scale_rewards:
            count = batch.scorable.sum(1, keepdim=True).clamp(min=1)
            centred = base.group_advantage(batch.rewards, scale=False)
            deviation = (centred.square().sum(1, keepdim=True) / count).sqrt()
            advantage = advantage / deviation.clamp(min=1e-7)
        return Advantages.without_margin(advantage)

    def loss(logps: Tensor, batch: Batch, advantages: Advantages) -> Tensor:
        low, high = 1 / (1 + epsilon), 1 + epsilon
        apart = base.log_ratio(logps, batch)
        if ratio == "token":
            terms = base.clipped(per_row(advantages.total), torch.exp(apart), low, high)
            return base.row_means(terms, batch).sum() / divisor
        by_row = torch.exp(base.row_sums(apart, batch))
        return base.clipped(advantages.total.reshape(-1), by_row, low, high).sum() / divisor

    return Algorithm("loop", advantages, loss, needs_old_logps=True)
