"""The command line and the environment for the Python processes that this package starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import aapo_desk


def python(module: str) -> list[str]:
    """Return the command that runs a module of this package.

    ``-P`` keeps the working directory off the import path, so that a user's ``datasets.py`` or ``random.py`` there
    does not shadow the real module.
    """
    return [sys.executable, "-P", "-m", module]


def environment() -> dict[str, str]:
    """Return this process's environment, changed so that the child imports this same package and writes unbuffered."""
    variables = dict(os.environ) | {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    folder = Path(aapo_desk.__file__).resolve().parent.parent
    if folder.name not in {"site-packages", "dist-packages"}:  # The package runs from a checkout, not installed.
        inherited = variables.get("PYTHONPATH")
        variables["PYTHONPATH"] = f"{folder}{os.pathsep}{inherited}" if inherited else str(folder)
    return variables
