"""The hub: where it is, whether it may be asked, whether it answers, whose token there is."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from aapo_desk.doctor.facts import Hub

SECONDS = 5.0
"""Until a connection counts as not there."""
SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def without_asking(offline: bool) -> Hub:
    """The hub as this machine is set up for it. ``offline``: no connection is wanted now."""
    from huggingface_hub import constants

    switch = next((name for name in SWITCHES if os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}), None)
    found = token()
    return Hub(constants.ENDPOINT, "--offline" if offline else switch, token=found[0] if found else None)


def token() -> tuple[str, str] | None:
    """Where the user's token is, and the token."""
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
    """Ask the hub whose token this is: it answers 200, 401 where it knows none, and is not there where it does not."""
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
