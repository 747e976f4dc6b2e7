"""Plain text for terminals and pipes: no colours, no boxes, nothing that a terminal would take for a command."""

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
"""A column is not cut further than to this: less tells nothing."""


def interactive() -> bool:
    """Whether a screen can be drawn and a key be pressed: on a terminal, or where textual-serve brings its driver."""
    if os.environ.get("TEXTUAL_DRIVER"):
        return True
    return sys.stdout.isatty() and sys.stdin.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def say(text: str = "") -> None:
    """A line on standard output, out at once."""
    typer.echo(text)


def complain(text: str, prefix: str = "aapo-desk: ") -> None:
    """A line (or one a problem) on standard error."""
    for line in text.splitlines() or [""]:
        typer.echo(f"{prefix}{printable(line)}", err=True)


def say_json(document: Any) -> None:
    """The one JSON document of a command with --json."""
    typer.echo(json.dumps(document, indent=2))


def printable(text: str) -> str:
    """Text from a model, a data set or an exception on one line, with control characters shown and not obeyed."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = (), shorten: str | None = None
) -> list[str]:
    """Rows as lines in columns; the columns named in ``right`` are set flush right.

    On a terminal that is narrower than the rows, the cells of the column ``shorten`` are cut off, as far as they stay
    of use: a row that is wrapped is no row. Into a file or a pipe all goes whole.
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
