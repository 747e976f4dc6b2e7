"""APA, Advantage-Induced Policy Alignment (arXiv 2306.02231; authors' code: microsoft/RLHF-APA).

    advantage   A[i] = (r[i] - mean) / (std + 1e-4), or r[i] - mean without scale_rewards
    loss        L    = token mean over the step of (lp - alpha A - ref)^2

The loss pulls the policy toward the reference's distribution tilted by the advantage, which is the solution of the
KL-regularised problem, whichever policy sampled the completions. A constant group pulls toward the reference itself.

Deviations from the authors' code: the group's advantage replaces their critic's; its scale differs, so alpha defaults
to 0.5 instead of their 10; unscorable completions are left out.
"""

from __future__ import annotations

from torch import Tensor

from aapo_desk.algorithms import base
from aapo_desk.algorithms.base import Advantages, Algorithm, Batch, group_advantage, per_row


def make(alpha: float = 0.5, scale_rewards: bool = True, std_eps: float = 1e-4) -> Algorithm:
    def advantages(batch: Batch) -> Advantages:
        return Advantages.without_margin(group_advantage(batch.rewards, scale_rewards, std_eps))

    def loss(logps: Tensor, batch: Batch, advantages: Advantages) -> Tensor:
        assert batch.reference_logps is not None
        apart = base.difference(logps, batch.reference_logps, batch)
        return base.token_mean((apart - alpha * per_row(advantages.total)).square(), batch)

    return Algorithm("apa", advantages, loss, needs_reference_logps=True, gradient_needs_logps=True)
