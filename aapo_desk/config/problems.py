"""Configuration errors, worded for the user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One error in a configuration: the path, the value that was given, and what is allowed."""

    path: str
    message: str
    given: Any = None
    origin: str = ""
    nearest: str | None = None

    def __str__(self) -> str:
        place = f" (from {self.origin})" if self.origin else ""
        given = "" if self.given is None else f" = {_short(self.given)}"
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.path}{given}{place}: {self.message}{hint}"


class ConfigError(ValueError):
    """Raised for a configuration that cannot be used. ``str()`` gives one line per problem, ready to be shown."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


def _short(value: Any, limit: int = 60) -> str:
    """Return the value as text. The middle of a long value is left out, because the end of a path says most."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit // 3]}…{text[-(limit - limit // 3 - 1) :]}"
