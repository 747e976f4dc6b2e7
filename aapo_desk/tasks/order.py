"""Choose the problems of a step: shuffled epochs, as a pure function of the step's number."""

from __future__ import annotations

import random
from functools import lru_cache


def step_problems(count: int, per_step: int, step: int, seed: int) -> list[int]:
    """Return the indices (below ``count``) of the ``per_step`` problems of a step. The first step is 1.

    The steps walk through one epoch after the other: every problem comes once before any comes again, and each epoch
    has its own order. No state is needed to resume. A step that spans the end of an epoch, or that needs more problems
    than there are, may contain a problem twice.
    """
    if count < 1 or per_step < 1 or step < 1:
        raise ValueError(f"count, per_step and step must be at least 1, not {count}, {per_step}, {step}")
    first = (step - 1) * per_step
    places = (divmod(place, count) for place in range(first, first + per_step))
    return [epoch_order(count, epoch, seed)[place] for epoch, place in places]


@lru_cache(maxsize=4)
def epoch_order(count: int, epoch: int, seed: int) -> list[int]:
    """Return the order of one epoch; the first is 0.

    ``random.Random`` seeds a text by its SHA-512, so the order is the same in every process.
    """
    order = list(range(count))
    random.Random(f"order {seed} {epoch}").shuffle(order)
    return order
