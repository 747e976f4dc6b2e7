"""Check whether a safetensors file is complete. Imports nothing heavy, since it is also used before a run exists."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open


def damage(path: Path) -> str | None:
    """Return what is wrong with a safetensors file, as part of a sentence; None if nothing is.

    Only its header and its length are checked, since an interrupted download lacks the end. A file that cannot be
    opened at all gives None: the code that loads it reports that.
    """
    try:
        with safe_open(path, framework="np"):
            return None
    except SafetensorError as error:
        reason = str(error).rpartition(": ")[2]
        return f"{path} is truncated or damaged ({path.stat().st_size} bytes; {reason})"
    except OSError:
        return None
