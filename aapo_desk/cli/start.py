"""Options shared by the commands, and the start of the terminal UI, whose first frame must appear within a second."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from aapo_desk.hub import go_offline

if TYPE_CHECKING:
    from aapo_desk.config import RunConfig
    from aapo_desk.store import RunDirectory

Ascii = Annotated[
    bool | None,
    typer.Option(
        "--ascii/--symbols",
        envvar="AAPO_DESK_ASCII",
        help="Draw with ASCII only, or with symbols (default: by locale).",
        show_default=False,
    ),
]


def _offline(wanted: bool) -> bool:
    """Go offline before any import that could connect. Processes started from here inherit it."""
    if wanted:
        go_offline()
    return wanted


Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        envvar="AAPO_DESK_OFFLINE",
        show_envvar=False,
        callback=_offline,
        help="Make no network connections: use cached models and data, and report what is missing.",
    ),
]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Only show: start, request and change nothing.")]


@contextmanager
def without_collecting() -> Iterator[None]:
    """Disable garbage collection during imports: what they make is kept, and scanning it takes 10 % of their time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def open_screen(
    run: RunDirectory | None = None,
    start: tuple[RunConfig, str | None] | None = None,
    read_only: bool = False,
    ascii_only: bool | None = None,
) -> int:
    """Show the terminal UI until the user leaves; return the exit status."""
    with without_collecting():
        from aapo_desk.tui.app import run_app
    return run_app(run, start, read_only, ascii_only)
