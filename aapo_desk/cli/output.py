"""Plain text for terminals and pipes: no colours, no boxes, nothing that a terminal would take for a command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer


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


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> list[str]:
    """Rows as lines in columns; the columns named in ``right`` are set flush right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    cells = [
        [
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(line, widths, header, strict=True)
        ]
        for line in lines
    ]
    return ["  ".join(line).rstrip() for line in cells]
