"""How low and how high a sum of rewards can be, for what must know its range before the first score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aapo_desk.rewards import cosine, overlong, repetition

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
