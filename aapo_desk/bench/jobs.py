"""What is measured in a process of its own, and what such a process says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from aapo_desk.config import RunConfig


class BenchError(RuntimeError):
    """A measurement that failed; the message says which and why."""


@dataclass(frozen=True)
class Job:
    """One thing to measure: by which module of this package, under which settings.

    ``choices`` take the place of what was chosen for the device. The ``warm_up`` steps come first and are not counted.
    ``options`` are the module's own.
    """

    worker: str
    config: RunConfig
    choices: Mapping[str, int] = field(default_factory=dict)
    warm_up: int = 1
    steps: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"config": self.config.model_dump(mode="json")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "config": RunConfig.model_validate(data["config"])})

    @property
    def rows(self) -> int:
        """The policy's completions in a step."""
        return self.config.rollout.prompts_per_step * self.config.rollout.group_size

    @property
    def tokens(self) -> int:
        """The tokens of the policy's completions in a step, each of which runs to its longest."""
        return self.rows * self.config.rollout.max_new_tokens


@dataclass(frozen=True)
class Measured:
    """What one process found.

    ``steps``: numbers of each step that counts, seconds at least. ``peaks``: MiB held at the most, by phase.
    ``about``: the device, the versions and the shape of the work, and the choices that a step of ours was made by.
    """

    steps: list[dict[str, float]]
    peaks: dict[str, float]
    about: dict[str, Any]

    @property
    def peak_mb(self) -> float:
        return max(self.peaks.values())
