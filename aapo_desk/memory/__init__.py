"""How much memory a run takes, and how much it may compute at once. Pure arithmetic: neither torch nor a model."""

from aapo_desk.memory.estimate import (
    DRAW_BYTES,
    EVALUATED_AT_ONCE,
    LOGITS_AT_ONCE,
    SORTED_DRAW_BYTES,
    Estimate,
    Settings,
    estimate,
    kept_bytes,
    loaded,
    required,
)
from aapo_desk.memory.planning import ENOUGH_TOKENS, MOST_ROWS, MOST_TOKENS, Plan, plan
from aapo_desk.memory.shape import FAMILIES, ModelShape

__all__ = [
    "DRAW_BYTES",
    "ENOUGH_TOKENS",
    "EVALUATED_AT_ONCE",
    "FAMILIES",
    "LOGITS_AT_ONCE",
    "MOST_ROWS",
    "MOST_TOKENS",
    "SORTED_DRAW_BYTES",
    "Estimate",
    "ModelShape",
    "Plan",
    "Settings",
    "estimate",
    "kept_bytes",
    "loaded",
    "plan",
    "required",
]
