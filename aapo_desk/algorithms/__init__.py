"""How rewards become a gradient: pure tensor functions, one file an algorithm."""

from aapo_desk.algorithms import aapo, grpo
from aapo_desk.algorithms.base import Advantages, Algorithm, Batch, Objective
from aapo_desk.config import AlgorithmConfig

__all__ = ["Advantages", "Algorithm", "Batch", "Objective", "build"]


def build(config: AlgorithmConfig) -> Algorithm:
    """The algorithm that a configuration names."""
    if config.name == "grpo":
        return grpo.make(
            config.option("epsilon_low"), config.option("epsilon_high"), config.option("beta"), config.scale_rewards
        )
    return aapo.make(config.margin_low, config.margin_high, config.scale_rewards, aggregation=config.aggregation)
