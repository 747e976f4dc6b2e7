"""No connection at all: for this process and for those it starts."""

from __future__ import annotations

import os

VARIABLE = "AAPO_DESK_OFFLINE"
LIBRARIES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""What the hub's libraries look at, when they are imported."""


def go_offline() -> None:
    """Fetch nothing from now on, neither from the hub nor from a package index. Before the libraries are imported."""
    for name in (VARIABLE, *LIBRARIES):
        os.environ[name] = "1"


def offline() -> bool:
    """Whether ``go_offline`` holds here. The hub's libraries have their own switch, which only stops the hub."""
    return os.environ.get(VARIABLE, "").lower() in ("1", "true", "yes", "on")
