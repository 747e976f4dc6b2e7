"""Loss scaling, for computing in float16: its smallest number is 6e-8, and a token's gradient is often smaller.

The gradient with respect to the log-probs is multiplied by a power of two before it goes back through the model, and
the adapter's gradients, which are float32, are divided by it before anything looks at them. Where one overflowed, the
step is left out and the factor halved; after so many good steps it is doubled (Micikevicius et al., arXiv 1710.03740).
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
"""After which a larger factor is tried. Runs have a few hundred steps, where pretraining has many thousands."""


@dataclass
class LossScale:
    """The factor, and how it fares."""

    factor: float = FIRST
    good: int = 0
    """Steps with a finite gradient since the factor changed. One without any gradient tells nothing."""
    skipped: int = 0
    """Steps of the run that were left out."""

    @classmethod
    def for_policy(cls, policy: Policy) -> LossScale | None:
        """None where the model computes in what needs none."""
        return cls() if policy.causal.dtype == torch.float16 else None

    def adapt(self, grad_norm: float) -> None:
        """Learn from a step whose gradient, divided by the factor again, has this norm."""
        if not math.isfinite(grad_norm):
            self.factor, self.good = max(self.factor / 2, LEAST), 0
            self.skipped += 1
        elif grad_norm > 0:
            self.good += 1
            if self.good == GOOD_STEPS:
                self.factor, self.good = min(self.factor * 2, MOST), 0

    def as_json(self) -> dict[str, Any]:
        """The state, for a checkpoint."""
        return asdict(self)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``as_json`` gave."""
        self.factor, self.good, self.skipped = float(state["factor"]), int(state["good"]), int(state["skipped"])
