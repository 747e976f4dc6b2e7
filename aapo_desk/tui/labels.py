"""Short labels for the user interface: states, durations, percentages, memory, models."""

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
    """Return a state's symbol and word, so that a state is never shown by colour alone."""
    return f"{STATE_SYMBOLS.get(state, '?')} {state}"


def algorithm_label(
    algorithm: AlgorithmConfig, difficulty: str = "off", start_from: str | None = None, solutions: int = 0
) -> str:
    """Return the algorithm's name, with the run's deviations from the paper: ``AAPO``, ``AAPO, banked reference``.

    ``difficulty``, ``start_from`` and ``solutions`` are the values of ``task.difficulty``, ``lora.start_from`` and
    ``warm_start.solutions``.
    """
    words = departures(algorithm.name, algorithm.reference, difficulty, algorithm.pairing, start_from, solutions)
    return algorithm.name.upper() + words


def duration(seconds: float) -> str:
    """Format a duration: ``47 s``, ``3m 05s``, ``2h 07m``, ``3d 04h``."""
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
    """Format an age coarsely: ``now``, ``12 min``, ``3 h``, ``5 d``."""
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
    """Return a model's short name: without its owner, the wheel it comes in, and its file suffix."""
    name = model_id.partition("#")[0].rstrip("/").rpartition("/")[2]
    name = re.sub(r"(\.[qQfF]\d\w*)?\.gguf$", "", name)
    return name or model_id


def clipped(text: str, width: int) -> str:
    """Return ``text`` cut to ``width`` characters; an ellipsis marks the cut."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
