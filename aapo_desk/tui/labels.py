"""Short words for people: states, durations, shares, models."""

from __future__ import annotations

import math
import re

from aapo_desk.config import AlgorithmConfig, departures

LIVE_STATES = frozenset({"starting", "running", "paused", "stopping"})
FAILED_STATES = frozenset({"crashed", "failed"})
RESUMABLE_STATES = FAILED_STATES | {"stopped"}

STATE_SYMBOLS = {
    "starting": "◌",
    "running": "▶",
    "paused": "‖",
    "stopping": "◧",
    "finished": "✓",
    "stopped": "■",
    "failed": "✗",
    "crashed": "✗",
}


def state_label(state: str) -> str:
    """Symbol and word: a state is never told by colour alone."""
    return f"{STATE_SYMBOLS.get(state, '?')} {state}"


def algorithm_label(
    algorithm: AlgorithmConfig, difficulty: str = "off", start_from: str | None = None, solutions: int = 0
) -> str:
    """``AAPO``; ``AAPO, banked reference`` where a run departs from the paper.

    ``difficulty``: as in ``task``; ``start_from``: as in ``lora``; ``solutions``: as in ``warm_start``.
    """
    words = departures(algorithm.name, algorithm.reference, difficulty, algorithm.pairing, start_from, solutions)
    return algorithm.name.upper() + words


def duration(seconds: float) -> str:
    """``47 s``, ``3m 05s``, ``2h 07m``, ``3d 04h``."""
    if not math.isfinite(seconds):
        return "–"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def age(seconds: float) -> str:
    """The coarse form: ``now``, ``12 min``, ``3 h``, ``5 d``."""
    if seconds < 60:
        return "now"
    if seconds < 3600:
        return f"{int(seconds // 60)} min"
    if seconds < 86400:
        return f"{int(seconds // 3600)} h"
    return f"{int(seconds // 86400)} d"


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:+.{digits}f}"


def percent(share: float | None) -> str:
    return "–" if share is None or not math.isfinite(share) else f"{share * 100:.0f} %"


def memory(megabytes: float | None) -> str:
    if megabytes is None or not math.isfinite(megabytes):
        return "–"
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1024:.1f} GB"


def model_label(model_id: str) -> str:
    """The name people use for a model: no owner, no wheel, no file ending."""
    name = model_id.partition("#")[0].rstrip("/").rpartition("/")[2]
    name = re.sub(r"(\.[qQfF]\d\w*)?\.gguf$", "", name)
    return name or model_id


def clipped(text: str, width: int) -> str:
    """``text`` cut to ``width`` characters, with an ellipsis where it was cut."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
