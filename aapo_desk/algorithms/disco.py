"""DisCO, Discriminative Constrained Optimization (arXiv 2505.12366; authors' code: Optimization-AI/DisCO).

    score       s    = row mean of lp (logl), or of exp(lp - old) (lratio)
    objective   J    = mean over all prompts of  mean+ s - tau log mean- exp(s / tau)     + right, - wrong completions
                       without soft_maximum:     mean+ s - mean- s                        ("DisCO-b")
    loss        L    = -J + beta / 2 [KL - delta]+ ^2
                KL   = token mean of  old - lp  (kl),  or of  (old - lp) + exp(-(old - lp)) - 1  (low_var_kl)

Rewards are labels, exactly 0 or 1; there is no advantage. A prompt whose completions are all right or all wrong has no
score term, but still counts in the number of prompts.

Deviations from the authors' code: their loss has the same gradient but another value; J and KL are taken over the whole
step, not over each micro-batch; tau defaults to theirs (10 for logl, 1 for lratio); unscorable completions are left
out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aapo_desk.algorithms import base
from aapo_desk.algorithms.base import Advantages, Algorithm, Batch

TAU = {"logl": 10.0, "lratio": 1.0}


def make(
    score: str = "logl",
    soft_maximum: bool = True,
    tau: float | None = None,
    beta: float = 1000.0,
    delta: float = 1e-4,
    kl: str = "kl",
) -> Algorithm:
    temperature = tau or TAU[score]

    def objective(scores: Tensor, batch: Batch) -> Tensor:
        right, wrong = batch.rewards == 1, batch.rewards == 0
        rights, wrongs = right.sum(1), wrong.sum(1)
        above = torch.where(right, scores, 0.0).sum(1) / rights.clamp(min=1)
        if soft_maximum:
            # If a prompt has no wrong completion, the logarithm of an empty sum is -inf and everything after it NaN.
            lowered = torch.where(wrong | (wrongs == 0)[:, None], scores / temperature, -torch.inf)
            below = temperature * (lowered.logsumexp(1) - wrongs.clamp(min=1).log())
        else:
            below = torch.where(wrong, scores, 0.0).sum(1) / wrongs.clamp(min=1)
        both = (rights > 0) & (wrongs > 0)
        return torch.where(both, above - below, 0.0).sum() / batch.scorable.any(1).sum().clamp(min=1)

    def loss(logps: Tensor, batch: Batch, advantages: Advantages) -> Tensor:
        apart = base.log_ratio(logps, batch)
        scores = base.row_means(logps if score == "logl" else torch.exp(apart), batch).reshape(batch.rewards.shape)
        divergence = base.token_mean(-apart if kl == "kl" else torch.exp(apart) - apart - 1, batch)
        return beta / 2 * (divergence - delta).clamp(min=0).square() - objective(scores, batch)

    return Algorithm(
        "disco",
        base.no_advantages,
        loss,
        needs_old_logps=True,
        needs_labels=True,
        has_advantages=False,
        gradient_needs_logps=soft_maximum and score == "logl",  # on the policy's own rollout the ratio is 1
    )
