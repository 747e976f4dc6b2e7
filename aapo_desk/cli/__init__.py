"""The command line. Thin: parse, call, print. Whatever is heavy is imported inside the command that needs it."""

from __future__ import annotations

import sys
from typing import NoReturn

from aapo_desk.cli.start import without_collecting

__all__ = ["main"]


def main() -> NoReturn:
    """Run the process's command line and end the process with its exit status."""
    with without_collecting():
        from aapo_desk.cli.app import run
    sys.exit(run())
