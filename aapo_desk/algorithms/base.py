"""The interface of an algorithm, and the tensor functions that algorithms share.

An algorithm receives a step's rewards and masks and, if it declares that it needs them, detached log-probs. It returns
the advantages, the loss and the gradient of the loss with respect to the log-probs of the sampled tokens. The update
engine backpropagates that gradient through micro-batches of any size, so a loss over whole groups or over the whole
step fits any memory.

Shapes: P prompts, G completions per prompt, B = P·G rows (row p·G + g), T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One step's rewards, masks and log-probs. The reward of an unscorable completion is NaN; such rows are ignored."""

    rewards: Tensor
    """[P, G]"""
    mask: Tensor
    """[B, T], 1 at completion tokens, including the one that ends the completion"""
    reference_rewards: Tensor | None = None
    """[P, G], the rewards of the reference's completions for the same prompts"""
    old_logps: Tensor | None = None
    """[B, T], log-probs under the policy that sampled; None if the current policy sampled, since they then equal the
    current ones"""
    reference_logps: Tensor | None = None
    """[B, T], log-probs of the policy's tokens under the reference"""

    @property
    def scorable(self) -> Tensor:
        """Return which completions have a reward, [P, G] bool."""
        return ~torch.isnan(self.rewards)

    @property
    def counted(self) -> Tensor:
        """Return the mask with unscorable rows set to 0, [B, T]."""
        return self.mask * self.scorable.reshape(-1, 1).to(self.mask.dtype)


@dataclass(frozen=True)
class Advantages:
    """The terms of the advantage, each [P, G], 0 for unscorable rows: ``total`` = ``group`` + ``margin``."""

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
    """An algorithm's result for a step: advantages, loss (a scalar) and its gradient by the log-probs, [B, T]."""

    advantages: Advantages
    loss: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Algorithm:
    """Two pure functions and the inputs that they need. They always receive all groups of the step, complete."""

    name: str
    advantages: Callable[[Batch], Advantages]
    """batch -> advantages; all zero if ``has_advantages`` is False"""
    loss: Callable[[Tensor, Batch, Advantages], Tensor]
    """(log-probs [B, T], batch, advantages) -> scalar"""
    needs_reference_rewards: bool = False
    needs_reference_logps: bool = False
    needs_old_logps: bool = False
    """True if the algorithm uses the log-probs that the tokens had when they were sampled. If the policy being updated
    is the one that sampled, these are the current log-probs and cost nothing."""
    needs_labels: bool = False
    """True if rewards must be exactly 0 or 1."""
    has_advantages: bool = True
    gradient_needs_logps: bool = False
    """True if the gradient depends on the values of the log-probs even if the policy being updated is the one that
    sampled."""
    max_refills: int = 0
    """The most times per step that problems whose group is constant are replaced by other problems."""

    def objective(self, batch: Batch, logps: Tensor) -> Objective:
        """Compute the advantages, the loss and its gradient at the given log-probs [B, T]."""
        advantages = self.advantages(batch)
        leaf = logps.detach().clone().requires_grad_()
        with torch.enable_grad():
            loss = self.loss(leaf, batch, advantages)
            (gradient,) = torch.autograd.grad(loss, leaf)
        return Objective(advantages, loss.detach(), gradient)


def group_advantage(rewards: Tensor, scale: bool, epsilon: float = 1e-4) -> Tensor:
    """Return (r - mean) / (std + epsilon) within each group [P, G], or r - mean without ``scale``; std is unbiased.

    Unscorable (NaN) rows are left out. The result is exactly 0 if a group is constant (max == min, because a standard
    deviation computed in floating point need not be exactly 0) or has fewer than two scorable rows.
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
    """Return r minus the mean of the group's other rewards, [P, G]; 0 for unscorable rows and for constant groups."""
    count = (~torch.isnan(rewards)).sum(1, keepdim=True)
    return group_advantage(rewards, scale=False) * count / (count - 1).clamp(min=1)


def varied(rewards: Tensor) -> Tensor:
    """Return whether each group [P, G] has at least two different rewards, [P, 1] bool; NaN (unscorable) is ignored."""
    scorable = ~torch.isnan(rewards)
    high = torch.where(scorable, rewards, -torch.inf).amax(1, keepdim=True)
    low = torch.where(scorable, rewards, torch.inf).amin(1, keepdim=True)
    return high > low


def no_advantages(batch: Batch) -> Advantages:
    """Return zero advantages, for algorithms that do not define any."""
    return Advantages.without_margin(torch.zeros_like(batch.rewards))


def old_or_current(logps: Tensor, batch: Batch) -> Tensor:
    """Return the log-probs [B, T] under the policy that sampled."""
    return logps.detach() if batch.old_logps is None else batch.old_logps


def difference(left: Tensor, right: Tensor, batch: Batch) -> Tensor:
    """Return left - right [B, T], 0 at ignored tokens.

    The values at ignored tokens must not reach exp: it may overflow to infinity, and infinity times a mask of 0 is NaN.
    """
    return torch.where(batch.counted > 0, left - right, 0.0)


def log_ratio(logps: Tensor, batch: Batch) -> Tensor:
    """Return lp - old [B, T], 0 at ignored tokens."""
    return difference(logps, old_or_current(logps, batch), batch)


def clipped(advantage: Tensor, ratio: Tensor, low: float, high: float) -> Tensor:
    """Return max(-A w, -A clip(w, low, high))."""
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(low, high))


def k3(logps: Tensor, batch: Batch) -> Tensor:
    """Return exp(ref - lp) - (ref - lp) - 1 [B, T], an estimate of the KL divergence from the reference."""
    assert batch.reference_logps is not None
    gap = difference(batch.reference_logps, logps, batch)
    return torch.exp(gap) - gap - 1


def token_mean(terms: Tensor, batch: Batch) -> Tensor:
    """Return the mean of ``terms`` [B, T] over all counted tokens."""
    return (batch.counted * terms).sum() / batch.counted.sum().clamp(min=1)


def row_sums(terms: Tensor, batch: Batch) -> Tensor:
    """Return each row's sum over its counted tokens, [B, T] -> [B]."""
    return (batch.counted * terms).sum(1)


def row_means(terms: Tensor, batch: Batch) -> Tensor:
    """Return each row's mean over its counted tokens, [B, T] -> [B]; 0 for unscorable rows."""
    return row_sums(terms, batch) / batch.counted.sum(1).clamp(min=1)


def mean_over_rows(values: Tensor, batch: Batch) -> Tensor:
    """Return the mean of ``values`` [B] over the scorable rows; they must be 0 for unscorable ones."""
    return values.sum() / batch.scorable.sum().clamp(min=1)


def per_row(advantages: Tensor) -> Tensor:
    """Return advantages [P, G] as a column [B, 1] that broadcasts over a row's tokens."""
    return advantages.reshape(-1, 1)
