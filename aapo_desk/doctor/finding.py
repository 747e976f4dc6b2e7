"""The result of one check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    ``state``: "problem" if training cannot work (on the GPU, if there is one), "warning" for a smaller disadvantage.
    """

    name: str
    state: State
    found: str
    advice: str = ""
    """The action to take; empty if nothing needs to be done."""

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def ok(name: str, found: str, advice: str = "") -> Finding:
    return Finding(name, "ok", found, advice)


def warning(name: str, found: str, advice: str = "") -> Finding:
    return Finding(name, "warning", found, advice)


def problem(name: str, found: str, advice: str = "") -> Finding:
    return Finding(name, "problem", found, advice)


def gb(mib: int) -> str:
    """Format MiB as GiB with one decimal, without the unit."""
    return f"{mib / 1024:.1f}"
