"""The jobs that are measured in processes of their own, and the results of such a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from aapo_desk.config import RunConfig


class BenchError(RuntimeError):
    """A measurement has failed; the message says which one and why."""


@dataclass(frozen=True)
class Job:
    """A measurement: the module of this package that does it (``worker``), and its settings.

    ``choices`` replace entries of the execution plan that was chosen for the device. ``warm_up`` is the number of steps
    that run first and are not counted, ``steps`` the number of steps that are. ``options`` are specific to the worker.
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
        """Return the number of the policy's completions in a step."""
        return self.config.rollout.prompts_per_step * self.config.rollout.group_size

    @property
    def tokens(self) -> int:
        """Return the number of tokens in the policy's completions of a step, all of which have the maximum length."""
        return self.rows * self.config.rollout.max_new_tokens


@dataclass(frozen=True)
class Measured:
    """The results of one measurement process.

    ``steps`` holds the numbers of each counted step, at least its ``seconds``. ``peaks`` is the peak memory in MiB by
    phase. ``about`` describes the device, the versions, the shape of the workload and, for our own steps, the execution
    plan (``choices``).
    """

    steps: list[dict[str, float]]
    peaks: dict[str, float]
    about: dict[str, Any]

    @property
    def peak_mb(self) -> float:
        return max(self.peaks.values())
