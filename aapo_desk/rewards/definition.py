"""Everything that determines a score besides the completion. Caches of scores use it to detect that they are stale."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_LIBRARIES = ("math-verify", "latex2sympy2_extended", "sympy", "reasoning-gym")


def definition(setup: Mapping[str, Any], weights: Sequence[float]) -> dict[str, Any]:
    """Return, as JSON, a worker's ``setup``: rewards, options, limits; and the weights, code and library versions.

    The code is identified by a hash of its text: the file of a custom reward, the Python files in its folder (it may
    import them) and this package. Other files that a custom reward reads are not covered.
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
        except OSError:  # the worker cannot read it either
            digest.update(b"unreadable")
    return digest.hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
