"""Plain text for terminals and pipes: no colours, no boxes, no control characters."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import typer
from rich.cells import cell_len, set_cell_size

GAP = "  "
LEAST_CELL = 16
"""Minimum width in cells of a shortened column; with fewer, the text is of no use."""


def interactive() -> bool:
    """Return whether a screen can be drawn and keys be read: on a terminal, or under textual-serve's driver."""
    if os.environ.get("TEXTUAL_DRIVER"):
        return True
    return sys.stdout.isatty() and sys.stdin.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def say(text: str = "") -> None:
    """Print a line on standard output and flush it."""
    typer.echo(text)


def complain(text: str, prefix: str = "aapo-desk: ") -> None:
    """Print each line of ``text`` on standard error, with ``prefix``."""
    for line in text.splitlines() or [""]:
        typer.echo(f"{prefix}{printable(line)}", err=True)


def say_json(document: Any) -> None:
    """Print the single JSON document of a command called with --json."""
    typer.echo(json.dumps(document, indent=2))


def printable(text: str) -> str:
    """Return text from a model, a data set or an exception as one line, with control characters escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = (), shorten: str | None = None
) -> list[str]:
    """Return rows as lines in aligned columns; the columns named in ``right`` are right-aligned.

    On a terminal narrower than the rows, the cells of the column ``shorten`` are cut, down to ``LEAST_CELL``, because
    wrapped rows are unreadable. Output to a file or a pipe is never cut.
    """
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(cell_len(line[column]) for line in lines) for column in range(len(header))]
    if shorten is not None and sys.stdout.isatty():
        column = header.index(shorten)
        over = sum(widths) + len(GAP) * (len(widths) - 1) - shutil.get_terminal_size().columns
        widths[column] = max(min(widths[column], LEAST_CELL), widths[column] - max(0, over))
    cells = [
        [_fitted(cell, width, name in right) for cell, width, name in zip(line, widths, header, strict=True)]
        for line in lines
    ]
    return [GAP.join(line).rstrip() for line in cells]


def _fitted(cell: str, width: int, right: bool) -> str:
    if cell_len(cell) > width:
        cell = set_cell_size(cell, width - 1).rstrip() + "…"
    room = " " * (width - cell_len(cell))
    return room + cell if right else cell + room
