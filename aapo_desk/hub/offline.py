"""Turn off all connections, for this process and its children."""

from __future__ import annotations

import os

VARIABLE = "AAPO_DESK_OFFLINE"
LIBRARIES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""The variables that the hub's libraries read when they are imported."""


def go_offline() -> None:
    """Forbid fetching from the hub and from package indexes. Call this before the hub's libraries are imported."""
    for name in (VARIABLE, *LIBRARIES):
        os.environ[name] = "1"


def offline() -> bool:
    """Return whether ``go_offline`` is in effect. The hub's libraries have their own switch, only for the hub."""
    return os.environ.get(VARIABLE, "").lower() in ("1", "true", "yes", "on")
