"""The possible range of a sum of rewards, for code that must know it before the first score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aapo_desk.rewards import cosine, overlong, repetition
from aapo_desk.rewards.builtin import BUILT_IN

if TYPE_CHECKING:
    from aapo_desk.config import RewardConfig

Bounds = tuple[float, float]

_OTHERS: dict[str, Callable[[Mapping[str, Any]], Bounds]] = {
    "cosine": cosine.bounds,
    "overlong": overlong.bounds,
    "repetition": repetition.bounds,
}


def bounds(rewards: Sequence[RewardConfig]) -> Bounds:
    """Return the lowest and highest weighted sum. Rewards of unknown range, such as custom ones, count as 0 to 1."""
    low = high = 0.0
    for reward in rewards:
        ends = [reward.weight * end for end in _OTHERS.get(reward.name, _zero_to_one)(reward.options)]
        low, high = low + min(ends), high + max(ends)
    return low, high


def _zero_to_one(_: Mapping[str, Any]) -> Bounds:
    return 0.0, 1.0


_LABELS = ("math", "format", "readable", "numeric", "countdown")
"""The built-in rewards that score 1 or 0, unless an option changes this."""


def not_labels(rewards: Sequence[RewardConfig]) -> tuple[str, str, Any] | None:
    """Return the path, the reason and the value by which the weighted sum could differ from 0 and 1, or None.

    Custom rewards are assumed to score 0 or 1; their scores are checked during training.
    """
    counting = [(index, reward) for index, reward in enumerate(rewards) if reward.weight]
    if len(counting) != 1:
        names = ", ".join(reward.name for _, reward in counting) or "none"
        return "rewards", f"exactly one reward must count, with weight 1; now these count: {names}", None
    index, reward = counting[0]
    if reward.weight != 1:
        return f"rewards.{index}.weight", "it must be 1", reward.weight
    if reward.name in BUILT_IN and reward.name not in _LABELS:
        return f"rewards.{index}.name", f"the rewards that are 0 or 1 are {', '.join(_LABELS)}", reward.name
    if reward.name == "countdown" and (partly := reward.options.get("well_formed", 0)) not in (0, 1):
        return f"rewards.{index}.options.well_formed", "it must be 0", partly
    return None
