"""What every reward shares: what is scored, what comes out, how options are refused.

Nothing here or in the built-in rewards imports pydantic, so that a worker process starts fast.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self


@dataclass(frozen=True)
class Completion:
    """One completion to be scored. ``tokens``, ``max_tokens``: its length and the longest allowed, in tokens.

    ``recipe``: how the problem's generator makes it again; empty where it was not generated or needs none.
    """

    text: str
    problem: str
    answer: str
    tokens: int
    max_tokens: int
    truncated: bool
    recipe: str = ""


@dataclass(frozen=True)
class Score:
    """What a completion got.

    ``parts`` holds each reward's own score, not yet weighted; ``total`` is their weighted sum. A part is None where
    its reward could not say (it hung, broke or declined); then ``total`` is None too and ``error`` says why in a line
    that begins with the part's name. After a worker had to be replaced, the parts not reached are None as well.
    ``read`` is the answer that was found in the text, from the first part that tells it.
    """

    total: float | None
    parts: dict[str, float | None]
    error: str | None = None
    read: str | None = field(default=None, compare=False)


class RewardError(RuntimeError):
    """The rewards cannot work at all (a worker does not start). ``str()`` is one line for the user."""


class FailingReward(Exception):
    """One reward could not score several completions in a row. ``error`` is the last one's, ``completion`` its text."""

    def __init__(self, name: str, error: str, count: int, completion: str) -> None:
        super().__init__(f"{name} failed on {count} answers in a row: {error}")
        self.name = name
        self.error = error
        self.count = count
        self.completion = completion


NO_SCORE = "gave no score (None)"
"""The error of a reward that returned None: it could not say, or its author forgot to return anything."""


@dataclass(frozen=True)
class Refusal:
    """Something wrong with a reward's settings. ``option`` is None where it is the reward itself."""

    option: str | None
    message: str
    given: Any = None
    nearest: str | None = None

    def __str__(self) -> str:
        place = f"option {self.option}: " if self.option else ""
        return place + self.message + (f"; did you mean {self.nearest}?" if self.nearest else "")


class RefusedError(Exception):
    """A reward that cannot be built from its settings."""

    def __init__(self, *refusals: Refusal) -> None:
        self.refusals = refusals
        super().__init__("; ".join(map(str, refusals)))


class Judged(float):
    """A score that also tells the answer it is for, as it was read in the completion; None where none was."""

    read: str | None

    def __new__(cls, value: float, read: str | None) -> Self:
        judged = super().__new__(cls, value)
        judged.read = read
        return judged


Scorer = Callable[[Completion], object]
"""Gives a finite number, or None for "cannot say". What else it gives or raises makes the answer unscorable."""


class BuiltIn(Protocol):
    """What the module of a built-in reward holds."""

    def check(self, options: Mapping[str, Any]) -> Iterable[Refusal]:
        """What is wrong with the options. Called in the user's process: imports nothing heavy."""

    def build(self, options: Mapping[str, Any]) -> Scorer:
        """The reward itself, of checked options. Called in a worker: may import what it needs."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like ``name``."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def unknown_options(options: Mapping[str, Any], known: Iterable[str] = ()) -> list[Refusal]:
    """A refusal for each option that a reward does not have."""
    names = list(known)
    allowed = f"; its options are {', '.join(names)}" if names else "; it has none"
    return [
        Refusal(name, f"there is no such option{allowed}", None, nearest(name, names))
        for name in options
        if name not in names
    ]


def one_line(text: str, limit: int = 200) -> str:
    """The text on one line without control characters (it may quote a model), cut at ``limit`` characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
