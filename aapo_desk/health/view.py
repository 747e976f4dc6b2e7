"""The input of the checks: the metrics of recent steps, the evaluations, the configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from aapo_desk.config import RunConfig

Metrics = Mapping[str, float | None]
History = Sequence[tuple[int, Metrics]]

GRACE_STEPS = 3
"""The first steps raise no alarm, since Adam's moments are still empty and the policy has hardly changed."""


class NotYet(Exception):
    """Raised by a check that has too little data to judge; an alarm that is active stays active."""


@dataclass(frozen=True)
class Facts:
    """Facts that neither metrics nor configuration contain.

    ``exact``: the model computes in float32 or better. ``most_reward``: the largest possible reward.
    ``adapter_zero``: every lora_B is still exactly 0. ``memory_used`` and ``memory_total`` are in MiB, and ``memory``
    names the memory that they refer to.
    """

    exact: bool = True
    most_reward: float = 1.0
    adapter_zero: bool = False
    memory_used: float = 0.0
    memory_total: float = 0.0
    memory: str = "the memory"


@dataclass(frozen=True)
class View:
    """The run up to its last step. ``evaluations`` maps a step to its evaluation, as stored in the database."""

    history: History
    evaluations: Mapping[int, Mapping[str, Any]]
    config: RunConfig
    facts: Facts

    @property
    def last(self) -> int:
        return self.history[-1][0]

    def window(self, count: int, after: int = GRACE_STEPS) -> History:
        """Return the last ``count`` steps. Raises NotYet until there are that many after step ``after``."""
        steps = self.history[-count:]
        if len(steps) < count or steps[0][0] <= after:
            raise NotYet
        return steps

    def values(self, key: str, count: int, after: int = GRACE_STEPS) -> list[float]:
        """Return a metric's finite values in the last ``count`` steps.

        Raises NotYet if at least half of these steps have none.
        """
        values = finite(key, self.window(count, after))
        if 2 * len(values) <= count:
            raise NotYet
        return values

    def mean(self, key: str, count: int) -> float:
        values = self.values(key, count)
        return sum(values) / len(values)


def finite(key: str, steps: History) -> list[float]:
    """Return a metric's finite values in these steps."""
    return [value for _, metrics in steps if is_number(value := metrics.get(key))]


def is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
