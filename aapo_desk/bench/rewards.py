"""A meaningless reward: almost no two completions get the same value, so that nearly every row has an advantage."""

from __future__ import annotations

import hashlib


def score(completion: str, answer: str) -> float:
    """Return a reward in [0, 1) that is a hash of the completion."""
    return int.from_bytes(hashlib.sha256(completion.encode()).digest()[:4]) / 2**32
