"""Loss scaling for float16, whose smallest number is 6e-8: a token's gradient is often smaller.

The gradient with respect to the log-probabilities is multiplied by a power of two before it goes back through the
model, and the adapter's gradients, which are float32, are divided by it before anything reads them. If one has
overflowed, the step is skipped and the factor halved; after ``GOOD_STEPS`` good steps the factor is doubled
(Micikevicius et al., arXiv 1710.03740).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from aapo_desk.models.policy import Policy

FIRST = 2.0**16
LEAST, MOST = 1.0, 2.0**24
GOOD_STEPS = 100
"""Good steps after which the factor is doubled. A run has a few hundred steps, pretraining has many thousands."""


@dataclass
class LossScale:
    """The loss scale's factor and the counts that adapt it."""

    factor: float = FIRST
    good: int = 0
    """Steps with a finite gradient since the factor changed. A step whose gradient is zero does not count."""
    skipped: int = 0
    """Steps that the run has skipped so far."""

    @classmethod
    def for_policy(cls, policy: Policy) -> LossScale | None:
        """Return a loss scale if the model computes in float16, else None."""
        return cls() if policy.causal.dtype == torch.float16 else None

    def adapt(self, grad_norm: float) -> None:
        """Adapt the factor to a step. ``grad_norm`` is the norm of the gradient after division by the factor."""
        if not math.isfinite(grad_norm):
            self.factor, self.good = max(self.factor / 2, LEAST), 0
            self.skipped += 1
        elif grad_norm > 0:
            self.good += 1
            if self.good == GOOD_STEPS:
                self.factor, self.good = min(self.factor * 2, MOST), 0

    def as_json(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return asdict(self)

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state that ``as_json`` returned."""
        self.factor, self.good, self.skipped = float(state["factor"]), int(state["good"]), int(state["skipped"])
