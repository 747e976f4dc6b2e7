"""How low and how high a sum of rewards can be, for what must know its range before the first score."""

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
    """Of the weighted sum. All that is not known to be otherwise, a user's own reward too, is taken for 0 to 1."""
    low = high = 0.0
    for reward in rewards:
        ends = [reward.weight * end for end in _OTHERS.get(reward.name, _zero_to_one)(reward.options)]
        low, high = low + min(ends), high + max(ends)
    return low, high


def _zero_to_one(_: Mapping[str, Any]) -> Bounds:
    return 0.0, 1.0


_LABELS = ("math", "format", "readable", "numeric", "countdown")
"""The built-in rewards that are 1 or 0, unless an option makes them something else."""


def not_labels(rewards: Sequence[RewardConfig]) -> tuple[str, str, Any] | None:
    """Where, why and by what value the weighted sum can be something else than 0 or 1; None where it cannot.

    A user's own reward is believed: what it gives is looked at when it has given it.
    """
    counting = [(index, reward) for index, reward in enumerate(rewards) if reward.weight]
    if len(counting) != 1:
        names = ", ".join(reward.name for _, reward in counting) or "none"
        return "rewards", f"exactly one of them may count, of weight 1; here count: {names}", None
    index, reward = counting[0]
    if reward.weight != 1:
        return f"rewards.{index}.weight", "it must be 1", reward.weight
    if reward.name in BUILT_IN and reward.name not in _LABELS:
        return f"rewards.{index}.name", f"those that are 0 or 1 are {', '.join(_LABELS)}", reward.name
    if reward.name == "countdown" and (partly := reward.options.get("well_formed", 0)) not in (0, 1):
        return f"rewards.{index}.options.well_formed", "it must be 0", partly
    return None
