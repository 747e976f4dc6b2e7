"""What determines a score beside the completion: for those who keep scores and must know when they no longer hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_LIBRARIES = ("math-verify", "latex2sympy2_extended", "sympy", "reasoning-gym")


def definition(setup: Mapping[str, Any], weights: Sequence[float]) -> dict[str, Any]:
    """As JSON, from a worker's ``setup``: rewards, options, weights, limits, and the code that scores.

    Code is known by its text: a custom reward's file, the Python files beside it (it may import them) and this package.
    What else a custom reward reads is not known here.
    """
    files = [Path(reward["custom"]["path"]) for reward in setup["rewards"] if reward["custom"]]
    folders = [Path(__file__).parent, *dict.fromkeys(file.parent for file in files)]
    return {
        **setup,
        "weights": list(weights),
        "code": [_code(folder) for folder in folders],
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def _code(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(f"\n{path.name}\n".encode())
        try:
            digest.update(path.read_bytes())
        except OSError:  # unreadable here, so unreadable for the worker too
            digest.update(b"unreadable")
    return digest.hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
