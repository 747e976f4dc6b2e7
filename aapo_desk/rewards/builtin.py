"""The rewards that come with AAPO Desk. To add one, write a module in this package and add its name here."""

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
"""The rewards that tell whether an answer is right. An evaluation uses the first of them that the run has."""


def built_in(name: str) -> BuiltIn:
    """Import and return the module of a built-in reward."""
    return cast(BuiltIn, importlib.import_module(f"aapo_desk.rewards.{name}"))
