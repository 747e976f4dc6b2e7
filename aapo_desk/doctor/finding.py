"""One thing that was looked at, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """``state``: a problem keeps training from working (where there is a GPU: on it); a warning costs something."""

    name: str
    state: State
    found: str
    advice: str = ""
    """What to do; empty where there is nothing."""

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def ok(name: str, found: str, advice: str = "") -> Finding:
    return Finding(name, "ok", found, advice)


def warning(name: str, found: str, advice: str = "") -> Finding:
    return Finding(name, "warning", found, advice)


def problem(name: str, found: str, advice: str = "") -> Finding:
    return Finding(name, "problem", found, advice)


def gb(mib: int) -> str:
    """MiB as GB for people, without the unit."""
    return f"{mib / 1024:.1f}"
