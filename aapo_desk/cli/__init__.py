"""The command line, a thin layer that parses arguments, calls other packages and prints.

Heavy imports are made inside the command that needs them, so that every other command starts fast.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from aapo_desk.cli.start import without_collecting

__all__ = ["main"]


def main() -> NoReturn:
    """Run the process's command line, then exit with its status."""
    with without_collecting():
        from aapo_desk.cli.app import run
    sys.exit(run())
