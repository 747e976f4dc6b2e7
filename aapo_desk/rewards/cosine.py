"""The ``cosine`` reward: right answers count less the longer they are, wrong ones are paid by their length too.

    long + (short - long) / 2 * (1 + cos(pi * tokens / longest))        tokens at most ``longest``

with ``short`` and ``long`` the values of a right or of a wrong answer at no length and at the longest. From
"Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv 2502.03373), in the form that open-r1 and open-rs use.
Right is what the ``math`` reward says.

Deviations: the length is counted in tokens (open-r1: characters). The default values are open-r1's: a long wrong answer
costs most. The paper's wish is the other way round, that a wrong answer be thought over: wrong_short -10, wrong_long 0,
right_short 2, right_long 1, exceeded -10; those are too large for AAPO's margin.

Options: ``right_short`` (1), ``right_long`` (0.5), ``wrong_short`` (0), ``wrong_long`` (-0.5); ``longest``, in tokens
(default: the longest that a completion may be); ``exceeded``: what a completion gets that was cut off (default: as the
formula says); ``worked_out``, as in ``math``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from aapo_desk.rewards import math as math_reward
from aapo_desk.rewards.base import Completion, Refusal, Scorer, unknown_options
from aapo_desk.rewards.number_options import check_count, check_number

VALUES = {"right_short": 1.0, "right_long": 0.5, "wrong_short": 0.0, "wrong_long": -0.5}


def check(options: Mapping[str, Any]) -> Iterator[Refusal]:
    yield from unknown_options(options, (*VALUES, "longest", "exceeded", "worked_out"))
    for name in (*VALUES, "exceeded"):
        yield from check_number(options, name, "must be a number")
    yield from check_count(options, "longest", "must be a number of tokens, 1 or more")
    yield from math_reward.check(_of_math(options))


def bounds(options: Mapping[str, Any]) -> tuple[float, float]:
    """The lowest and the highest score."""
    values = {**VALUES, **{name: float(value) for name, value in options.items() if name in (*VALUES, "exceeded")}}
    return min(values.values()), max(values.values())


def build(options: Mapping[str, Any]) -> Scorer:
    right = math_reward.build(_of_math(options))
    values = {name: float(options.get(name, value)) for name, value in VALUES.items()}

    def score(completion: Completion) -> float:
        if completion.truncated and "exceeded" in options:
            return float(options["exceeded"])
        kind = "right" if right(completion) else "wrong"
        short, long = values[f"{kind}_short"], values[f"{kind}_long"]
        progress = min(1.0, completion.tokens / options.get("longest", max(1, completion.max_tokens)))
        return long + (short - long) / 2 * (1 + math.cos(math.pi * progress))

    return score


def _of_math(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name == "worked_out"}
