"""Types shared by all rewards: completions, scores, and refused options.

Nothing here or in the built-in rewards imports pydantic, so that a worker process starts fast.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self


@dataclass(frozen=True)
class Completion:
    """One completion to score. ``tokens`` is its length and ``max_tokens`` the maximum length, in tokens.

    ``recipe``: how the problem's generator can make the problem again; empty if no generator is needed for scoring.
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
    """The score of a completion.

    ``parts`` holds the unweighted score of each reward; ``total`` is their weighted sum. A part is None if its reward
    gave no score (it hung, broke or returned None); then ``total`` is None too, and ``error`` gives the reason in a
    line that begins with the part's name. If the worker had to be replaced, the parts after that one are None as well.
    ``read`` is the answer found in the text, from the first part that reports it.
    """

    total: float | None
    parts: dict[str, float | None]
    error: str | None = None
    read: str | None = field(default=None, compare=False)


class RewardError(RuntimeError):
    """Raised if the rewards cannot work at all (a worker does not start). ``str()`` is one line for the user."""


class FailingReward(Exception):
    """Raised if one reward could not score several completions in a row.

    ``error`` and ``completion`` are the error and the text of the last of them.
    """

    def __init__(self, name: str, error: str, count: int, completion: str) -> None:
        super().__init__(f"{name} failed on {count} answers in a row: {error}")
        self.name = name
        self.error = error
        self.count = count
        self.completion = completion


NO_SCORE = "returned no score (None)"
"""The error of a reward that returned None: it could not judge, or its author forgot to return anything."""


@dataclass(frozen=True)
class Refusal:
    """An error in the settings of a reward. ``option`` is None if the error concerns the reward itself."""

    option: str | None
    message: str
    given: Any = None
    nearest: str | None = None

    def __str__(self) -> str:
        place = f"option {self.option}: " if self.option else ""
        return place + self.message + (f"; did you mean {self.nearest}?" if self.nearest else "")


class RefusedError(Exception):
    """Raised for a reward that cannot be built from its settings."""

    def __init__(self, *refusals: Refusal) -> None:
        self.refusals = refusals
        super().__init__("; ".join(map(str, refusals)))


class Judged(float):
    """A score with the answer that was read in the completion, as it is written there; None if there was none."""

    read: str | None

    def __new__(cls, value: float, read: str | None) -> Self:
        judged = super().__new__(cls, value)
        judged.read = read
        return judged


Scorer = Callable[[Completion], object]
"""Returns a finite number, or None for "cannot judge". Any other result, and any exception, makes the completion
unscorable."""


class BuiltIn(Protocol):
    """The interface of the module of a built-in reward."""

    def check(self, options: Mapping[str, Any]) -> Iterable[Refusal]:
        """Return the errors in the options. Runs in the user's process, so it imports nothing heavy."""

    def build(self, options: Mapping[str, Any]) -> Scorer:
        """Build the reward from checked options. Runs in a worker, so it may import what it needs."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to ``name``, or None if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def unknown_options(options: Mapping[str, Any], known: Iterable[str] = ()) -> list[Refusal]:
    """Return a refusal for each option that the reward does not have."""
    names = list(known)
    allowed = f"; its options are {', '.join(names)}" if names else "; it has none"
    return [
        Refusal(name, f"there is no such option{allowed}", None, nearest(name, names))
        for name in options
        if name not in names
    ]


def one_line(text: str, limit: int = 200) -> str:
    """Return the text on one line, without control characters (it may quote a model), cut at ``limit`` characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
