"""What is wrong with a configuration, in lines for the user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a configuration: where, what was given, what is allowed."""

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
    """A configuration that cannot be used. ``str()`` is one line a problem, fit to be shown as it is."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


def _short(value: Any, limit: int = 60) -> str:
    """The value as text, its middle left out where it is long: a path's end says most."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit // 3]}…{text[-(limit - limit // 3 - 1) :]}"
