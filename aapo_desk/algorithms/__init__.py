"""The algorithms that turn rewards into a gradient: pure tensor functions, one file per algorithm."""

import importlib
import inspect

from aapo_desk.algorithms.base import Advantages, Algorithm, Batch, Objective
from aapo_desk.config import AlgorithmConfig, RolloutConfig

__all__ = ["Advantages", "Algorithm", "Batch", "Objective", "build"]


def build(config: AlgorithmConfig, rollout: RolloutConfig | None = None) -> Algorithm:
    """Build the algorithm that a configuration names.

    ``make`` in the algorithm's file declares by parameter name the settings it uses. Available are the settings of
    ``algorithm``, the algorithm's own options and, from the rollout, ``max_tokens`` (the longest completion allowed)
    and ``rows`` (completions per step).
    """
    make = importlib.import_module(f"aapo_desk.algorithms.{config.name}").make
    sizes = rollout or RolloutConfig()
    known = {
        **config.model_dump(exclude={"name", "options"}),
        "max_tokens": sizes.max_new_tokens,
        "rows": sizes.prompts_per_step * sizes.group_size,
        **config.own_options,
    }
    made: Algorithm = make(**{key: known[key] for key in inspect.signature(make).parameters if key in known})
    return made
