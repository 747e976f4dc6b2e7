"""The rewards that come with AAPO Desk. A new one is a module of this package and its name here."""

from __future__ import annotations

import importlib
from typing import cast

from aapo_desk.rewards.base import BuiltIn

BUILT_IN = (
    "math",
    "format",
    "length",
    "readable",
    "cosine",
    "repetition",
    "tags",
    "overlong",
    "numeric",
    "countdown",
    "reasoning_gym",
)

VERIFIERS = ("math", "countdown", "numeric")
"""Those that say whether an answer is right: an evaluation is judged by the first of them that a run has."""


def built_in(name: str) -> BuiltIn:
    """The module of a built-in reward."""
    return cast(BuiltIn, importlib.import_module(f"aapo_desk.rewards.{name}"))
