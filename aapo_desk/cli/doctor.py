"""The ``doctor`` command: what this machine lacks for training, and how to fix it."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from aapo_desk.cli.output import printable, say, say_json
from aapo_desk.cli.start import Offline

if TYPE_CHECKING:
    from aapo_desk.doctor import Finding

LEAST_WIDTH = 60


def add_to(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Run one tiny training step, and compare the fast paths with the plain ones."),
    ] = False,
    offline: Offline = False,
) -> None:
    """Check what this machine lacks for training, and how to fix it.

    Exit status 1 means that training cannot work or, if there is an NVIDIA GPU, cannot work on it.
    """
    from aapo_desk.doctor import findings, look

    if not json and sys.stderr.isatty():
        typer.echo("checking this machine; this takes some seconds", err=True)
    facts = look(offline=offline, probe=probe)
    found = findings(facts)
    works = not any(finding.state == "problem" for finding in found)
    if json:
        say_json({"works": works, "findings": [one.as_json() for one in found], "facts": facts.as_json()})
    else:
        say("\n".join(lines(found, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)))
    if not works:
        raise typer.Exit(1)


def lines(findings: Sequence[Finding], width: int | None = None) -> list[str]:
    """Return the findings as columns, with the advice below each. Lines wrap at ``width``; None disables wrapping."""
    names = max(len(finding.name) for finding in findings)
    states = max(len(finding.state) for finding in findings)
    indent = names + states + 4
    room = max(width, indent + LEAST_WIDTH) - indent if width else None
    told: list[str] = []
    for finding in findings:
        head = f"{finding.name:<{names}}  {finding.state:<{states}}  "
        for text in (finding.found, finding.advice):
            for line in _broken(printable(text), room):
                told.append(f"{head}{line}")
                head = " " * indent
    return told


def _broken(text: str, room: int | None) -> list[str]:
    if not text:
        return []
    return [text] if room is None else textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
