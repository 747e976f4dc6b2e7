"""Find which number of a step is not finite, and where it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from aapo_desk.models.finite import broken_tensor
from aapo_desk.models.policy import Policy

Kind = Literal["log-prob", "loss", "gradient", "weight", "moment"]


@dataclass(frozen=True)
class NonFinite:
    """A NaN or infinity: what kind of number it is, and a description of where it is."""

    what: Kind
    where: str

    @property
    def is_kept(self) -> bool:
        """True if the number is part of what the next step starts from, so that skipping this step does not help."""
        return self.what in ("weight", "moment")

    def __str__(self) -> str:
        return f"a {self.what} ({self.where})"


def broken_logps(logps: Mapping[str, Tensor | None]) -> NonFinite | None:
    """Return the first row of log-probabilities [B, T] that is not finite, or None. ``logps`` is keyed by source."""
    for name, values in logps.items():
        if values is not None and not bool((fine := torch.isfinite(values).all(1)).all()):
            return NonFinite("log-prob", f"{name}, row {int((~fine).nonzero()[0])}")
    return None


def broken_gradient(loss: float, norm: float, policy: Policy) -> NonFinite | None:
    """Return which of the loss, the gradient's norm and the gradient itself is not finite, or None."""
    if not math.isfinite(loss):
        return NonFinite("loss", "the update")
    if not math.isfinite(norm):
        found = {name: value.grad for name, value in policy.adapter_parameters().items() if value.grad is not None}
        return NonFinite("gradient", broken_tensor(found) or "its norm")
    return None


def broken_state(policy: Policy, optimizer: torch.optim.Optimizer) -> NonFinite | None:
    """Return which tensor of the adapter or of the optimiser's moments is not finite, or None."""
    parameters = policy.adapter_parameters()
    if name := broken_tensor({name: value.data for name, value in parameters.items()}):
        return NonFinite("weight", name)
    state: Any = optimizer.state
    moments = {
        f"{name}/{key}": value
        for name, parameter in parameters.items()
        for key, value in state.get(parameter, {}).items()
        if key != "step" and isinstance(value, Tensor)
    }
    if name := broken_tensor(moments):
        return NonFinite("moment", name)
    return None
