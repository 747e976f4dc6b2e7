"""How this package starts a Python process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import aapo_desk


def python(module: str) -> list[str]:
    """The command that runs a module of this package.

    ``-P`` keeps the working directory off the import path, so that a user's ``datasets.py`` or ``random.py`` there
    does not take the place of the real one.
    """
    return [sys.executable, "-P", "-m", module]


def environment() -> dict[str, str]:
    """This process's environment, in which the child finds this very package and writes its output unbuffered."""
    variables = dict(os.environ) | {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    folder = Path(aapo_desk.__file__).resolve().parent.parent
    if folder.name not in {"site-packages", "dist-packages"}:  # a checkout that is not installed
        inherited = variables.get("PYTHONPATH")
        variables["PYTHONPATH"] = f"{folder}{os.pathsep}{inherited}" if inherited else str(folder)
    return variables
