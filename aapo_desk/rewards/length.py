"""The ``length`` reward: 1 for a short completion, falling linearly to 0 at the maximum length.

    1                                                  up to ``target`` tokens
    (max_tokens - tokens) / (max_tokens - target)      from there to ``max_tokens``
    0                                                  if the completion was truncated

Option: ``target``, in tokens (default 0: every token costs the same).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from aapo_desk.rewards.base import Completion, Refusal, Scorer, unknown_options


def check(options: Mapping[str, Any]) -> Iterator[Refusal]:
    yield from unknown_options(options, ("target",))
    target = options.get("target", 0)
    if isinstance(target, bool) or not isinstance(target, int | float) or not (math.isfinite(target) and target >= 0):
        yield Refusal("target", "must be a number of tokens, 0 or more", target)


def build(options: Mapping[str, Any]) -> Scorer:
    target: float = options.get("target", 0)

    def score(completion: Completion) -> float:
        if completion.truncated:
            return 0.0
        if completion.tokens <= target:
            return 1.0
        return max(0.0, (completion.max_tokens - completion.tokens) / (completion.max_tokens - target))

    return score
