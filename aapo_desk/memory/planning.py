"""How much a run may compute at once on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from aapo_desk.config import RunConfig
from aapo_desk.memory.estimate import Settings, estimate, required
from aapo_desk.memory.shape import ModelShape

MOST_TOKENS = {"cpu": 512, "cuda": 8192}
"""Tokens in a micro-batch beyond which no time is saved, by device."""

ENOUGH_TOKENS = 1024
"""Tokens in a micro-batch from which little time is saved: a faster rollout is the better use of memory then."""

MOST_ROWS = 256
"""Rows decoded at once, at the most."""


@dataclass(frozen=True)
class Plan:
    """How much a run computes at once on a device, and which savings it needs or can afford."""

    token_budget: int
    """Tokens in a micro-batch of the update."""
    batch_rows: int
    """Rows decoded at once."""
    gradient_checkpointing: bool
    """Where even the longest row would not fit without it."""
    shadow_weights: bool
    """Whether the weights are kept dequantised: as configured, or where they fit beside everything else."""


def plan(shape: ModelShape, config: RunConfig, free_bytes: int, device_type: str) -> Plan:
    """The largest batches that fit into ``free_bytes``, at least one row each, on a cpu or cuda device.

    ``free_bytes`` is what the whole run may take, before anything is loaded; once the model is, add ``loaded``.
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
    """The largest number from 1 to ``most`` that fits, where a larger one never fits better; 1 where none does."""
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
