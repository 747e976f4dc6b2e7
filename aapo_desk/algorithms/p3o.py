"""P3O, Pairwise Proximal Policy Optimization (arXiv 2310.00212).

    pairs       of completions 1, 2 of one prompt: ``all``, or ``adjacent`` (1 2, 3 4, ...)
    row         s = sum of lp,  W = exp(s - s_old),  c = W clamped to [1/C, C],  lr = sum(lp - ref)
    reward      q = r1 - r2 - beta (lr1 - lr2)                                    no gradient flows through q and c
    v1          L = mean over pairs of half of
                    max(-q c2 W1, -q c2 clip(W1, 1 - e, 1 + e)) + max(q c1 W2, q c1 clip(W2, 1 - e, 1 + e))
    v2          L = mean over pairs of half of max(-q c D, -q c clip(D, D_old - e, D_old + e)),
                    D = lr1 - lr2,  c = W1 W2 clamped to [1/C, C]

e: cliprange, C: cliprange_ratio. There is no advantage.

Deviations from the paper: a prompt may have more than two completions, which are paired as above; pairs with an
unscorable completion are left out. Without beta the reference is not computed, and the value of v2's loss then lacks
its constant part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aapo_desk.algorithms import base
from aapo_desk.algorithms.base import Advantages, Algorithm, Batch


def make(
    variant: str = "v2",
    beta: float = 0.05,
    cliprange: float = 0.2,
    cliprange_ratio: float = 10.0,
    pairs: str = "all",
) -> Algorithm:
    def capped(ratio: Tensor) -> Tensor:
        return ratio.detach().clamp(1 / cliprange_ratio, cliprange_ratio)

    def loss(logps: Tensor, batch: Batch, advantages: Advantages) -> Tensor:
        shape = batch.rewards.shape
        ref = torch.zeros_like(logps) if batch.reference_logps is None else batch.reference_logps
        gap = base.log_ratio(logps, batch)
        moved = base.row_sums(gap, batch).reshape(shape)
        ahead = base.row_sums(base.difference(logps, ref, batch), batch).reshape(shape)
        one, two = _pairs(shape[1], pairs)
        ratio = torch.exp(moved)
        apart = ahead[:, one] - ahead[:, two]
        reward = batch.rewards[:, one] - batch.rewards[:, two] - beta * apart.detach()
        whole = ~torch.isnan(reward)
        reward = torch.where(whole, reward, 0.0)
        if variant == "v1":
            sides = ((one, two, reward), (two, one, -reward))
            low, high = 1 - cliprange, 1 + cliprange
            terms = sum(base.clipped(q * capped(ratio[:, b]), ratio[:, a], low, high) for a, b, q in sides)
        else:
            before = (apart - (moved[:, one] - moved[:, two])).detach()
            held = torch.minimum(torch.maximum(apart, before - cliprange), before + cliprange)
            weight = reward * capped(ratio[:, one] * ratio[:, two])
            terms = torch.maximum(-weight * apart, -weight * held)
        return (0.5 * terms * whole).sum() / whole.sum().clamp(min=1)

    return Algorithm(
        "p3o",
        base.no_advantages,
        loss,
        needs_old_logps=True,
        needs_reference_logps=beta > 0,
        has_advantages=False,
        gradient_needs_logps=beta > 0,
    )


def _pairs(size: int, pairs: str) -> tuple[Tensor, Tensor]:
    """Return the indices in a group of the first and of the second completion of each pair."""
    if pairs == "adjacent":
        return torch.arange(0, size - 1, 2), torch.arange(1, size, 2)
    one, two = torch.triu_indices(size, size, 1)
    return one, two
