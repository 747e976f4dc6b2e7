"""The ``cosine`` reward: a score for right and wrong answers that depends on their length.

    long + (short - long) / 2 * (1 + cos(pi * tokens / longest))        tokens at most ``longest``

where ``short`` and ``long`` are the scores of a right (or wrong) answer at length 0 and at length ``longest``. From
"Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv 2502.03373), in the form that open-r1 and open-rs use.
The ``math`` reward decides whether an answer is right.

Deviations: the length is counted in tokens (open-r1: characters). The default values are open-r1's: a long wrong answer
costs most. The paper wants the opposite, so that the model thinks longer if its answer is wrong: wrong_short -10,
wrong_long 0, right_short 2, right_long 1, exceeded -10; these values are too large for AAPO's margin.

Options: ``right_short`` (1), ``right_long`` (0.5), ``wrong_short`` (0), ``wrong_long`` (-0.5); ``longest``, in tokens
(default: the maximum length of a completion); ``exceeded``: the score of a truncated completion (default: by the
formula); ``worked_out``, as in ``math``.
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
    """Return the lowest and the highest possible score."""
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
