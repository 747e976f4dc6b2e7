"""Choosing a run's batch sizes and memory savings for a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from aapo_desk.config import RunConfig
from aapo_desk.memory.estimate import Settings, estimate, required
from aapo_desk.memory.shape import ModelShape

MOST_TOKENS = {"cpu": 512, "cuda": 8192}
"""Maximum tokens in a micro-batch, by device; more would not be faster."""

ENOUGH_TOKENS = 1024
"""Tokens in a micro-batch above which little time is saved, so that a faster rollout is a better use of memory."""

MOST_ROWS = 256
"""Maximum number of rows decoded at once."""


@dataclass(frozen=True)
class Plan:
    """A run's batch sizes on a device, and the memory options it needs or can afford."""

    token_budget: int
    """Tokens in a micro-batch of the update."""
    batch_rows: int
    """Rows decoded at once."""
    gradient_checkpointing: bool
    """True if it is used, which is only if even the longest row would not fit without it."""
    shadow_weights: bool
    """True if dequantized weights are kept: as configured, or if they fit in addition to everything else."""


def plan(shape: ModelShape, config: RunConfig, free_bytes: int, device_type: str) -> Plan:
    """Return the largest batches, of at least one row each, that fit into ``free_bytes`` on a cpu or cuda device.

    ``free_bytes`` is the memory for the whole run before anything is loaded; if the model is already loaded, add
    ``loaded`` to what is free.
    """

    def update_fits(tokens: int, shadow: bool = False, checkpointing: bool = False) -> bool:
        settings = Settings.of(config, device_type, tokens=tokens)
        settings = replace(settings, shadow=shadow, checkpointing=checkpointing)
        return required(estimate(shape, settings).update, device_type) <= free_bytes

    def rollout_fits(rows: int, shadow: bool = False) -> bool:
        settings = replace(Settings.of(config, device_type, rows=rows), shadow=shadow)
        return required(estimate(shape, settings).rollout, device_type) <= free_bytes

    longest = config.task.max_prompt_tokens + config.rollout.max_new_tokens
    step_rows = config.rollout.prompts_per_step * config.rollout.group_size
    enough = max(longest, min(ENOUGH_TOKENS, step_rows * longest))
    shadow = config.rollout.weights == "shadow" or (
        config.rollout.weights == "auto"
        and update_fits(enough, shadow=True)
        and rollout_fits(min(2 * step_rows, MOST_ROWS), shadow=True)
    )
    checkpointing = not update_fits(longest, shadow)
    return Plan(
        token_budget=_largest(lambda tokens: update_fits(tokens, shadow, checkpointing), MOST_TOKENS[device_type]),
        batch_rows=_largest(lambda rows: rollout_fits(rows, shadow), MOST_ROWS),
        gradient_checkpointing=checkpointing,
        shadow_weights=shadow,
    )


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest number from 1 to ``most`` that fits, or 1 if none does, by bisection.

    It relies on every number below one that fits fitting too.
    """
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
