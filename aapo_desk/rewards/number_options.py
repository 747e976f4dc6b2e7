"""Checks for numeric options of rewards."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aapo_desk.rewards.base import Refusal


def check_number(
    options: Mapping[str, Any], name: str, message: str, fits: Callable[[float], bool] = lambda _: True
) -> Iterator[Refusal]:
    """Yield a refusal with ``message`` if the option is given but is not a finite number that ``fits``."""
    if name not in options:
        return
    value = options[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not fits(value):
        yield Refusal(name, message, value)


def check_count(options: Mapping[str, Any], name: str, message: str) -> Iterator[Refusal]:
    """Return a refusal with ``message`` if the option is given but is not a whole number of at least 1."""
    return check_number(options, name, message, lambda value: isinstance(value, int) and value >= 1)
