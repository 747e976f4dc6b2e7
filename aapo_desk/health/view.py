"""What a check sees of a run: the last steps' numbers, the evaluations, the configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from aapo_desk.config import RunConfig

Metrics = Mapping[str, float | None]
History = Sequence[tuple[int, Metrics]]

GRACE_STEPS = 3
"""The first steps raise nothing: Adam's moments are still empty there, and the policy has hardly moved."""


class NotYet(Exception):
    """Too little is known to judge; an alarm that stands goes on standing."""


@dataclass(frozen=True)
class Facts:
    """What neither metrics nor configuration hold. Memory in MiB, and whose it is.

    ``exact``: the model computes in float32 or better. ``most_reward``: the largest that the rewards can give.
    ``adapter_zero``: every lora_B is still exactly 0.
    """

    exact: bool = True
    most_reward: float = 1.0
    adapter_zero: bool = False
    memory_used: float = 0.0
    memory_total: float = 0.0
    memory: str = "the memory"


@dataclass(frozen=True)
class View:
    """The run up to its last step. ``evaluations``: step -> what it gave, as the store keeps it."""

    history: History
    evaluations: Mapping[int, Mapping[str, Any]]
    config: RunConfig
    facts: Facts

    @property
    def last(self) -> int:
        return self.history[-1][0]

    def window(self, count: int, after: int = GRACE_STEPS) -> History:
        """The last ``count`` steps. Raises NotYet until so many have been done after step ``after``."""
        steps = self.history[-count:]
        if len(steps) < count or steps[0][0] <= after:
            raise NotYet
        return steps

    def values(self, key: str, count: int, after: int = GRACE_STEPS) -> list[float]:
        """A metric's values in the last ``count`` steps, where it has one. Raises NotYet where half have none."""
        values = finite(key, self.window(count, after))
        if 2 * len(values) <= count:
            raise NotYet
        return values

    def mean(self, key: str, count: int) -> float:
        values = self.values(key, count)
        return sum(values) / len(values)


def finite(key: str, steps: History) -> list[float]:
    """A metric's values in these steps, where it has one that is finite."""
    return [value for _, metrics in steps if is_number(value := metrics.get(key))]


def is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
