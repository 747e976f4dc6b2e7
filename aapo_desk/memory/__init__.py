"""Estimates of a run's memory and of its largest batches: pure arithmetic, without torch or a loaded model."""

from aapo_desk.memory.estimate import (
    DRAW_BYTES,
    EVALUATED_AT_ONCE,
    LOGITS_AT_ONCE,
    SLACK,
    SORTED_DRAW_BYTES,
    Estimate,
    Settings,
    estimate,
    kept_bytes,
    loaded,
    required,
)
from aapo_desk.memory.known import TWINS, known_config, known_models
from aapo_desk.memory.layers import FAMILIES
from aapo_desk.memory.planning import ENOUGH_TOKENS, MOST_ROWS, MOST_TOKENS, Plan, plan
from aapo_desk.memory.shape import ModelShape

__all__ = [
    "DRAW_BYTES",
    "ENOUGH_TOKENS",
    "EVALUATED_AT_ONCE",
    "FAMILIES",
    "LOGITS_AT_ONCE",
    "MOST_ROWS",
    "MOST_TOKENS",
    "SLACK",
    "SORTED_DRAW_BYTES",
    "TWINS",
    "Estimate",
    "ModelShape",
    "Plan",
    "Settings",
    "estimate",
    "kept_bytes",
    "known_config",
    "known_models",
    "loaded",
    "plan",
    "required",
]
