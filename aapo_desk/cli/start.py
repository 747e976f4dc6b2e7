"""A quick start: the first frame is to be there within a second."""

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
        help="Draw with ASCII only, or with symbols; by default as the locale allows.",
        show_default=False,
    ),
]


def _offline(wanted: bool) -> bool:
    """Before anything is imported that could connect, and for all that is started from here."""
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
        help="Make no connection: take models and data from the cache, and say what is missing there.",
    ),
]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Only look: start nothing, ask and change nothing.")]


@contextmanager
def without_collecting() -> Iterator[None]:
    """For imports: what they make stays, and looking through it for garbage takes a tenth of their time."""
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
    """Show the terminal UI until the user leaves; the exit status."""
    with without_collecting():
        from aapo_desk.tui.app import run_app
    return run_app(run, start, read_only, ascii_only)
