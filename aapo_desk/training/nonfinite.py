"""Which number of a step is not finite, and where it stands."""

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
    """A number that is NaN or infinite: what it is and where, in words."""

    what: Kind
    where: str

    @property
    def is_kept(self) -> bool:
        """Whether it stands in what the next step begins with: leaving out this step does not help then."""
        return self.what in ("weight", "moment")

    def __str__(self) -> str:
        return f"a {self.what} ({self.where})"


def broken_logps(logps: Mapping[str, Tensor | None]) -> NonFinite | None:
    """The first of these log-probs [B, T] that is not finite. Their names say whose they are."""
    for name, values in logps.items():
        if values is not None and not bool((fine := torch.isfinite(values).all(1)).all()):
            return NonFinite("log-prob", f"{name}, row {int((~fine).nonzero()[0])}")
    return None


def broken_gradient(loss: float, norm: float, policy: Policy) -> NonFinite | None:
    """What of a loss, a gradient's norm and the gradient itself is not finite."""
    if not math.isfinite(loss):
        return NonFinite("loss", "the update")
    if not math.isfinite(norm):
        found = {name: value.grad for name, value in policy.adapter_parameters().items() if value.grad is not None}
        return NonFinite("gradient", broken_tensor(found) or "its norm")
    return None


def broken_state(policy: Policy, optimizer: torch.optim.Optimizer) -> NonFinite | None:
    """What of the adapter and of the optimiser's moments is not finite."""
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
