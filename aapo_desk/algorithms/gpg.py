"""GPG, Group Policy Gradient (arXiv 2504.02546; authors' code: AMAP-ML/GPG).

    advantage   A[i] = r[i] - mean, or (r[i] - mean) / (std + 1e-4) with scale_rewards
    loss        L    = token mean over the step of (-lp A + beta k3), divided by the share of groups that vary
                k3   = exp(ref - lp) - (ref - lp) - 1

Constant groups stay in the mean, where they contribute nothing, and the division compensates for them (``adjust``); if
all groups are constant, the loss is 0. There is no ratio and no clipping, so each rollout is used for exactly one
update.

Deviations from the authors' code: the mean and the share are taken over the whole step, not over each micro-batch; a
group counts as constant if max == min; unscorable completions are left out.
"""

from __future__ import annotations

from torch import Tensor

from aapo_desk.algorithms import base
from aapo_desk.algorithms.base import Advantages, Algorithm, Batch, group_advantage, per_row


def make(beta: float = 0.0, adjust: bool = True, scale_rewards: bool = False, std_eps: float = 1e-4) -> Algorithm:
    def advantages(batch: Batch) -> Advantages:
        return Advantages.without_margin(group_advantage(batch.rewards, scale_rewards, std_eps))

    def loss(logps: Tensor, batch: Batch, advantages: Advantages) -> Tensor:
        terms = -logps * per_row(advantages.total)
        if beta:
            terms = terms + beta * base.k3(logps, batch)
        mean = base.token_mean(terms, batch)
        if not adjust:
            return mean
        share = base.varied(batch.rewards).to(mean).mean()
        return mean / share if share > 0 else mean * 0

    return Algorithm("gpg", advantages, loss, needs_reference_logps=beta > 0, gradient_needs_logps=beta > 0)
