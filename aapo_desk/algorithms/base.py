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
    """[B, T], under the policy that sampled; None: the current policy did"""
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
    """Two pure functions and what they need."""

    name: str
    advantages: Callable[[Batch], Advantages]
    loss: Callable[[Tensor, Batch, Advantages], Tensor]
    """(log-probs [B, T], batch, advantages) -> scalar"""
    needs_reference_rewards: bool = False
    needs_reference_logps: bool = False
    gradient_needs_logps: bool = False
    """Whether the gradient depends on the log-probs' values in an update of the very policy that sampled."""

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
    high = torch.where(scorable, rewards, -torch.inf).amax(1, keepdim=True)
    low = torch.where(scorable, rewards, torch.inf).amin(1, keepdim=True)
    return torch.where((count >= 2) & (high > low), centred, 0.0)


def per_row(advantages: Tensor) -> Tensor:
    """[P, G] as a column [B, 1], to be spread over a row's tokens."""
    return advantages.reshape(-1, 1)
