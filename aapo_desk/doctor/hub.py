"""Checks of the Hugging Face hub: its address, offline switches, whether it answers, and the user's token."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from aapo_desk.doctor.facts import Hub

SECONDS = 5.0
"""Time limit of the request."""
SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def without_asking(offline: bool) -> Hub:
    """Return the hub's state by this machine's settings, without a request. ``offline``: make no connection now."""
    from huggingface_hub import constants

    switch = next((name for name in SWITCHES if os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}), None)
    found = token()
    return Hub(constants.ENDPOINT, "--offline" if offline else switch, token=found[0] if found else None)


def token() -> tuple[str, str] | None:
    """Return the location of the user's token and the token itself, or None."""
    from huggingface_hub import constants

    for name in TOKENS:
        if value := os.environ.get(name, "").strip():
            return name, value
    try:
        value = Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return (constants.HF_TOKEN_PATH, value) if value else None


def who_am_i() -> dict[str, Any]:
    """Send the hub's who-am-I request.

    Returns its status (200, or 401 if the hub does not know the token), or an error if the hub cannot be reached.
    """
    from huggingface_hub import constants

    try:
        request = urllib.request.Request(f"{constants.ENDPOINT}/api/whoami-v2")
        if found := token():
            request.add_unredirected_header("Authorization", f"Bearer {found[1]}")
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return {"status": answer.status}
    except urllib.error.HTTPError as error:
        return {"status": error.code}
    except urllib.error.URLError as error:
        return {"error": " ".join(str(error.reason).split())}
    except (OSError, ValueError) as error:
        return {"error": " ".join(str(error).split()) or type(error).__name__}
