"""The checkpoint to talk to, and how answers are sampled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from aapo_desk import launch
from aapo_desk.config import ConfigError, Problem
from aapo_desk.evaluation.results import SIDES, Side
from aapo_desk.export import Source
from aapo_desk.export import choose as choose_checkpoint
from aapo_desk.store import RunDirectory

__all__ = ["MAX_NEW_TOKENS", "SIDES", "Answering", "Side", "choose"]

MAX_NEW_TOKENS = 256
"""The default maximum length of an answer in tokens, unless the run's own evaluations allow longer ones."""
HOTTEST = 5.0
NAMES = {"temperature": "temperature", "top-p": "top_p", "tokens": "max_new_tokens"}
"""The fields of ``Answering`` by the names that the user types."""


@dataclass(frozen=True)
class Answering:
    """How answers are sampled. ``temperature`` 0 is greedy; ``max_new_tokens`` None uses the process's maximum."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int | None = None

    def check(self) -> None:
        """Check the values. Raises ConfigError with all values that are not allowed."""
        if problems := list(self._problems()):
            raise ConfigError(*problems)

    def _problems(self) -> Iterator[Problem]:
        if not 0 <= self.temperature <= HOTTEST:
            yield Problem("--temperature", f"must be 0 (greedy) to {HOTTEST:g}", self.temperature)
        if not 0 < self.top_p <= 1:
            yield Problem("--top-p", "must be above 0 and at most 1 (all tokens)", self.top_p)
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            yield Problem("--max-new-tokens", "must be 1 or more", self.max_new_tokens)

    def changed(self, text: str) -> Answering:
        """Return a copy with the values in ``text``, pairs such as ``temperature 0.7 top-p 0.9 tokens 100``.

        Raises ConfigError if the text cannot be read or a value is not allowed.
        """
        words = text.replace("=", " ").split()
        allowed = ", ".join(NAMES)
        if len(words) % 2 or not words:
            raise ConfigError(
                Problem("sampling", f"must be pairs of a name and a number; the names are {allowed}", text.strip())
            )
        changes: dict[str, Any] = {}
        for name, value in zip(words[::2], words[1::2], strict=True):
            if name not in NAMES:
                raise ConfigError(Problem("sampling", f"unknown name; allowed are {allowed}", name))
            changes[NAMES[name]] = _number(name, value)
        made = replace(self, **changes)
        made.check()
        return made

    def as_json(self) -> dict[str, float | int | None]:
        return {"temperature": self.temperature, "top_p": self.top_p, "max_new_tokens": self.max_new_tokens}

    def words(self, longest: int | None = None) -> str:
        """Describe the settings for the user. ``longest`` is the process's maximum answer length in tokens."""
        how = "greedy" if self.temperature == 0 else f"temperature {self.temperature:g}"
        if self.temperature and self.top_p < 1:
            how += f", top-p {self.top_p:g}"
        most = self.max_new_tokens or longest
        return f"{how}, up to {most} tokens" if most else how


def _number(name: str, text: str) -> float | int:
    kind = int if name == "tokens" else float
    try:
        value: float | int = kind(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(Problem(name, "must be a whole number" if kind is int else "must be a number", text))
    return value


def choose(run: RunDirectory, step: str | None, live: bool) -> Source:
    """Return the checkpoint to talk to: by default the best; for a run that is still training, the last.

    Raises ConfigError if there is none, StoreError if the run cannot be read.
    """
    if not any(run.checkpoints.glob("step_*")):
        name = run.name
        if live:
            every = run.read_config().run.checkpoint_every
            then = f"it writes one every {every} steps, or after this step with: aapo-desk checkpoint {name}"
        else:
            then = f"continue its training until it has one, with: aapo-desk resume {name}"
        raise ConfigError(Problem("RUN", f"has no checkpoint yet, so there is no tuned model; {then}", name))
    return choose_checkpoint(run, step or ("last" if live else "best"))


def is_live(run: RunDirectory) -> bool:
    """Return whether the run is being trained now."""
    return launch.is_alive(run)
