"""Whether a safetensors file is whole. Imports nothing heavy: it is asked before a run exists, too."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open


def damage(path: Path) -> str | None:
    """What is wrong with a safetensors file, as half a sentence; None where nothing is.

    Told by its header and its length alone, since a download that broke off lacks the end. What cannot be opened at all
    is for those who load it to tell.
    """
    try:
        with safe_open(path, framework="np"):
            return None
    except SafetensorError as error:
        reason = str(error).rpartition(": ")[2]
        return f"{path} is cut short or damaged ({path.stat().st_size} bytes; {reason})"
    except OSError:
        return None
