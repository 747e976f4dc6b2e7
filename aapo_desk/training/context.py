"""All that a step works with, from its configuration to the choices made for the device."""

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
"""Phase and its progress, 0 to 1."""


@dataclass
class TrainContext:
    """All that a step works with."""

    config: RunConfig
    policy: Policy
    algorithm: Algorithm
    optimizer: torch.optim.Optimizer
    pool: RewardPool
    train: list[Problem]
    prompts: list[list[int]]
    """Token ids of each training problem's prompt."""
    choices: dict[str, int]
    """What was chosen for this device and model. Kept in the run's record and replayed."""
    bank: BankedReference | None = None
    """None: the reference is sampled in each step, where it is needed."""
    difficulty: Difficulty | None = None
    """None: problems come evenly."""
    ranks: Ranks = ALONE
    """The processes that compute the run together."""
    oom_retry: OomRetry | None = None
    """What to do where memory runs out in a phase; None: nothing."""
    rate_factor: float = 1.0
    """Of the configured learning rate: lower once the run has gone back (``training.rollback``)."""
    edges: Edges = field(init=False)
    cost: Cost = field(init=False)
    scale: LossScale | None = field(init=False)
    """Where the model computes in float16."""

    def __post_init__(self) -> None:
        self.edges = Edges.of(self.config)
        self.scale = LossScale.for_policy(self.policy)
        self.cost = Cost.of(self.policy.causal.config.get_text_config())

    def attempt(self, phase: Phase, rows: int, compute: Callable[[], Result]) -> Result:
        """What ``compute`` gives, as ``OomRetry.run``."""
        return self.oom_retry.run(phase, rows, compute) if self.oom_retry else compute()


def make_room(context: TrainContext) -> None:
    """Where memory is short, what a phase has freed goes back before the next one begins."""
    if context.choices["checkpointing"]:
        give_back(context.policy.device)
