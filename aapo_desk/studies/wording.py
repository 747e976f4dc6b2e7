"""Formatting numbers of any size in a few characters."""

from __future__ import annotations


def figure(value: float | None, sign: str = "", missing: str = "–") -> str:
    """Format a number: ``0.794``, ``38.12``, ``1893``, ``2.00e-04``. ``sign`` is "+" for a difference."""
    if value is None:
        return missing
    size = abs(value)
    form = ".0f" if size >= 1000 else ".2f" if size >= 10 else ".3f" if size >= 0.01 or not size else ".2e"
    return format(value, sign + form)
