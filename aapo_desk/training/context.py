"""Everything that a training step needs, from its configuration to the choices made for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from aapo_desk.algorithms import Algorithm
from aapo_desk.config import RunConfig
from aapo_desk.models.policy import Policy
from aapo_desk.rewards import RewardPool
from aapo_desk.rollout import BankedReference
from aapo_desk.tasks import Problem
from aapo_desk.tasks.difficulty import Difficulty
from aapo_desk.training.device.allocator import give_back
from aapo_desk.training.device.memory_probe import Phase
from aapo_desk.training.distributed.group import ALONE, Ranks
from aapo_desk.training.loss_scaling import LossScale
from aapo_desk.training.metrics import Edges
from aapo_desk.training.micro_batches import Cost
from aapo_desk.training.oom_retry import OomRetry, Result

Report = Callable[[str, float | None], None]
"""Takes a phase and its progress, 0 to 1."""


@dataclass
class TrainContext:
    """Everything that a training step needs."""

    config: RunConfig
    policy: Policy
    algorithm: Algorithm
    optimizer: torch.optim.Optimizer
    pool: RewardPool
    train: list[Problem]
    prompts: list[list[int]]
    """Token ids of each training problem's prompt."""
    choices: dict[str, int]
    """The choices made for this device and model; recorded, and reused when the run is resumed."""
    bank: BankedReference | None = None
    """None: if the reference is needed, it is sampled in each step."""
    difficulty: Difficulty | None = None
    """None: problems are sampled evenly."""
    ranks: Ranks = ALONE
    """All processes of the run."""
    oom_retry: OomRetry | None = None
    """Repeats a phase that runs out of memory; None: the error is raised."""
    rate_factor: float = 1.0
    """Factor of the configured learning rate: below 1 after a rollback (``training.rollback``)."""
    edges: Edges = field(init=False)
    cost: Cost = field(init=False)
    scale: LossScale | None = field(init=False)
    """The loss scale if the model computes in float16, else None."""

    def __post_init__(self) -> None:
        self.edges = Edges.of(self.config)
        self.scale = LossScale.for_policy(self.policy)
        self.cost = Cost.of(self.policy.causal.config.get_text_config())

    def attempt(self, phase: Phase, rows: int, compute: Callable[[], Result]) -> Result:
        """Return what ``compute`` returns, repeated as in ``OomRetry.run`` if memory runs out."""
        return self.oom_retry.run(phase, rows, compute) if self.oom_retry else compute()


def make_room(context: TrainContext) -> None:
    """Between two phases, return freed memory to the device if memory is tight (gradient checkpointing is on)."""
    if context.choices["checkpointing"]:
        give_back(context.policy.device)
