"""What an algorithm sees and gives.

An algorithm sees a step's rewards and masks and, where it declares the need, detached log-probs; it gives the
advantages, the loss and the gradient of the loss with respect to the log-probs of the sampled tokens. The update
engine sends that gradient back through micro-batches of any size, so a loss over whole groups or the whole step fits
any memory.

Shapes: P prompts, G completions a prompt, B = P·G rows (row p·G + g), T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One step. Rewards are NaN where a completion is unscorable; such rows count nowhere."""

    rewards: Tensor
    """[P, G]"""
    mask: Tensor
    """[B, T], 1 at completion tokens, the ending one included"""
    reference_rewards: Tensor | None = None
    """[P, G], of the reference's completions for the same prompts"""
    old_logps: Tensor | None = None
    """[B, T], under the policy that sampled; None: the current policy did, so they are the current ones"""
    reference_logps: Tensor | None = None
    """[B, T], of the policy's tokens under the reference"""

    @property
    def scorable(self) -> Tensor:
        """[P, G] bool"""
        return ~torch.isnan(self.rewards)

    @property
    def counted(self) -> Tensor:
        """[B, T]: the mask without the rows that are unscorable."""
        return self.mask * self.scorable.reshape(-1, 1).to(self.mask.dtype)


@dataclass(frozen=True)
class Advantages:
    """The terms of the advantage, each [P, G]: ``total`` = ``group`` + ``margin``. 0 for unscorable rows."""

    group: Tensor
    margin: Tensor

    @classmethod
    def without_margin(cls, group: Tensor) -> Self:
        return cls(group, torch.zeros_like(group))

    @property
    def total(self) -> Tensor:
        return self.group + self.margin


@dataclass(frozen=True)
class Objective:
    """An algorithm's word on a step: loss (a scalar) and its gradient with respect to the log-probs, [B, T]."""

    advantages: Advantages
    loss: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Algorithm:
    """Two pure functions and what they need. Whole groups, and the whole step's, are always there."""

    name: str
    advantages: Callable[[Batch], Advantages]
    """Zeros where there are none by ``has_advantages``."""
    loss: Callable[[Tensor, Batch, Advantages], Tensor]
    """(log-probs [B, T], batch, advantages) -> scalar"""
    needs_reference_rewards: bool = False
    needs_reference_logps: bool = False
    needs_old_logps: bool = False
    """Whether it looks at how likely the tokens were when they were sampled. In an update of the very policy that
    sampled, these are the current log-probs and cost nothing."""
    needs_labels: bool = False
    """Whether rewards must be exactly 0 or 1."""
    has_advantages: bool = True
    gradient_needs_logps: bool = False
    """Whether the gradient depends on the log-probs' values in an update of the very policy that sampled."""
    max_refills: int = 0
    """How often in a step, at the most, other problems take the place of those whose group is constant."""

    def objective(self, batch: Batch, logps: Tensor) -> Objective:
        """Advantages, loss and gradient at the given log-probs [B, T]."""
        advantages = self.advantages(batch)
        leaf = logps.detach().clone().requires_grad_()
        with torch.enable_grad():
            loss = self.loss(leaf, batch, advantages)
            (gradient,) = torch.autograd.grad(loss, leaf)
        return Objective(advantages, loss.detach(), gradient)


def group_advantage(rewards: Tensor, scale: bool, epsilon: float = 1e-4) -> Tensor:
    """(r - mean) / (std + epsilon) within each group [P, G], or r - mean without ``scale``; std unbiased.

    Unscorable (NaN) rows are left out. Exactly 0 where a group is constant (by max == min: a deviation computed in
    floating point is not exactly 0) or has fewer than two scorable rows.
    """
    scorable = ~torch.isnan(rewards)
    count = scorable.sum(1, keepdim=True)
    values = torch.where(scorable, rewards, 0.0)
    centred = torch.where(scorable, values - values.sum(1, keepdim=True) / count.clamp(min=1), 0.0)
    if scale:
        variance = centred.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)
        centred = centred / (variance.sqrt() + epsilon)
    return torch.where(varied(rewards), centred, 0.0)


def leave_one_out(rewards: Tensor) -> Tensor:
    """r - mean of the group's others [P, G]. 0 for rows that are unscorable, and in groups that are not ``varied``."""
    count = (~torch.isnan(rewards)).sum(1, keepdim=True)
    return group_advantage(rewards, scale=False) * count / (count - 1).clamp(min=1)


def varied(rewards: Tensor) -> Tensor:
    """Whether each group [P, G] holds two different rewards, [P, 1] bool; unscorable (NaN) rows are none."""
    scorable = ~torch.isnan(rewards)
    high = torch.where(scorable, rewards, -torch.inf).amax(1, keepdim=True)
    low = torch.where(scorable, rewards, torch.inf).amin(1, keepdim=True)
    return high > low


def no_advantages(batch: Batch) -> Advantages:
    """For algorithms that have none."""
    return Advantages.without_margin(torch.zeros_like(batch.rewards))


def old_or_current(logps: Tensor, batch: Batch) -> Tensor:
    """Log-probs [B, T] under the policy that sampled."""
    return logps.detach() if batch.old_logps is None else batch.old_logps


def difference(left: Tensor, right: Tensor, batch: Batch) -> Tensor:
    """left - right [B, T], 0 where nothing counts: what stands there must not reach exp, whose overflow by 0 is NaN."""
    return torch.where(batch.counted > 0, left - right, 0.0)


def log_ratio(logps: Tensor, batch: Batch) -> Tensor:
    """lp - old [B, T]."""
    return difference(logps, old_or_current(logps, batch), batch)


def clipped(advantage: Tensor, ratio: Tensor, low: float, high: float) -> Tensor:
    """max(-A w, -A clip(w, low, high))"""
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(low, high))


def k3(logps: Tensor, batch: Batch) -> Tensor:
    """exp(ref - lp) - (ref - lp) - 1 [B, T], an estimate of the KL divergence from the reference."""
    assert batch.reference_logps is not None
    gap = difference(batch.reference_logps, logps, batch)
    return torch.exp(gap) - gap - 1


def token_mean(terms: Tensor, batch: Batch) -> Tensor:
    """Mean of terms [B, T] over all tokens that count."""
    return (batch.counted * terms).sum() / batch.counted.sum().clamp(min=1)


def row_sums(terms: Tensor, batch: Batch) -> Tensor:
    """[B, T] -> [B], over the tokens that count."""
    return (batch.counted * terms).sum(1)


def row_means(terms: Tensor, batch: Batch) -> Tensor:
    """[B, T] -> [B], over the tokens that count; 0 for unscorable rows."""
    return row_sums(terms, batch) / batch.counted.sum(1).clamp(min=1)


def mean_over_rows(values: Tensor, batch: Batch) -> Tensor:
    """Mean of values [B], which are 0 for unscorable rows, over the others."""
    return values.sum() / batch.scorable.sum().clamp(min=1)


def per_row(advantages: Tensor) -> Tensor:
    """[P, G] as a column [B, 1], to be spread over a row's tokens."""
    return advantages.reshape(-1, 1)
