"""AAPO, Advantage-Augmented Policy Optimization (arXiv 2505.14264; authors' code: JianxXiong/AAPO).

    group advantage   A[i]  = (r[i] - mean) / (std + 1e-4), or r[i] - mean without scale_rewards
    margin            M[i]  = clip(r[i] - rr[i], margin_low, margin_high)      rr: the frozen reference's rewards
    advantage         A*[i] = A[i] + M[i]
    loss              L     = sum(m · -lp · A*) / sum(m)                       gradient -A* m / sum(m)

A group whose rewards are all equal has A = 0 but still contributes a gradient through M. There is no ratio, no clipping
of the policy and no KL term, so each rollout is used for exactly one update.

Deviations from the authors' code:
1. The token mean is taken over the whole step (the formula above). The authors average inside each micro-batch of one
   group and then over groups; ``aggregation="groups"`` does that.
2. rr is the reward of a completion that the reference sampled. The authors' open-rs variant scores a slice of the
   prompt.
3. A group counts as constant if max == min, not if std == 0: floating-point noise can make the std of equal rewards
   differ from 0.
4. ``pairing="mean"`` compares each completion with the mean of the reference's group instead of the reference's i-th
   completion, so that the margin does not carry the sampling noise of one completion. This variant is ours, not the
   paper's.
5. Unscorable completions (NaN) are left out of the mean, the standard deviation and the loss; if only the reference's
   completion is unscorable, the margin is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aapo_desk.algorithms.base import Advantages, Algorithm, Batch, group_advantage, per_row, row_sums, token_mean

PAIRED_BY_MEAN = (
    "each completion is compared with the mean of its problem's reference completions: a variant of ours that replaces "
    "the paper's pairing by index"
)


def make(
    margin_low: float = -0.2,
    margin_high: float = 0.28,
    scale_rewards: bool = True,
    std_eps: float = 1e-4,
    aggregation: str = "tokens",
    pairing: str = "index",
) -> Algorithm:
    def advantages(batch: Batch) -> Advantages:
        assert batch.reference_rewards is not None
        group = group_advantage(batch.rewards, scale_rewards, std_eps)
        against = batch.reference_rewards
        if pairing == "mean":
            against = against.nanmean(1, keepdim=True)
        margin = (batch.rewards - against).clamp(margin_low, margin_high)
        return Advantages(group, torch.nan_to_num(margin, nan=0.0))

    def loss(logps: Tensor, batch: Batch, advantages: Advantages) -> Tensor:
        terms = -logps * per_row(advantages.total)
        if aggregation == "tokens":
            return token_mean(terms, batch)
        prompts = batch.rewards.shape[0]
        tokens = batch.counted.reshape(prompts, -1).sum(1)
        means = row_sums(terms, batch).reshape(prompts, -1).sum(1) / tokens.clamp(min=1)
        return means.sum() / (tokens > 0).sum().clamp(min=1)

    return Algorithm("aapo", advantages, loss, needs_reference_rewards=True)
