"""The ``overlong`` reward: a penalty that grows gradually as a completion approaches the maximum length.

     0                                            up to longest - margin tokens
    -(tokens - (longest - margin)) / margin       from there to ``longest``
    -1                                            beyond ``longest``, and if the completion was truncated

The "soft overlong punishment" of DAPO (arXiv 2503.14476, equation 13), which uses longest = 20480 and margin = 4096.

Options, in tokens: ``longest`` (default: the maximum length of a completion) and ``margin`` (default: a fifth of
``longest``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aapo_desk.rewards.base import Completion, Refusal, Scorer, unknown_options
from aapo_desk.rewards.number_options import check_count

MARGIN = 0.2


def check(options: Mapping[str, Any]) -> Iterator[Refusal]:
    yield from unknown_options(options, ("longest", "margin"))
    wrong = [
        refusal
        for name in ("longest", "margin")
        for refusal in check_count(options, name, "must be a number of tokens, 1 or more")
    ]
    yield from wrong
    if not wrong and {"longest", "margin"} <= options.keys() and options["margin"] > options["longest"]:
        yield Refusal("margin", f"must not be more than longest ({options['longest']})", options["margin"])


def bounds(_: Mapping[str, Any]) -> tuple[float, float]:
    """Return the lowest and the highest possible score."""
    return -1.0, 0.0


def build(options: Mapping[str, Any]) -> Scorer:
    def score(completion: Completion) -> float:
        if completion.truncated:
            return -1.0
        longest: int = options.get("longest", max(1, completion.max_tokens))
        margin: float = options.get("margin", MARGIN * longest)
        return -min(1.0, max(0.0, (completion.tokens - (longest - margin)) / margin))

    return score
