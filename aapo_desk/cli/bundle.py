"""The ``runs export`` command: an archive of a run for a bug report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aapo_desk.cli.output import complain, printable, say, say_json
from aapo_desk.cli.train import Run
from aapo_desk.config import ConfigError, Problem, user_path
from aapo_desk.store import find_run

ENDING = ".zip"


def add_to(runs: typer.Typer) -> None:
    runs.command("export")(export)


def export(
    run: Run,
    bundle: Annotated[bool, typer.Option("--bundle", help="Write a zip archive for a bug report.")] = False,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="FILE", help="File or folder to write to (default: the current folder)."),
    ] = None,
    with_samples: Annotated[bool, typer.Option("--with-samples", help="Include prompts and completions.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Collect what a bug report about a run needs: settings, metrics, events, log, versions, machine.

    Access tokens, prompts and completions are left out. The run may be running, crashed or damaged.
    """
    if not bundle:
        raise ConfigError(
            Problem("--bundle", "is missing; to export an adapter, run: aapo-desk export RUN --format adapter --to DIR")
        )
    found = find_run(run)
    from aapo_desk.bundle import BundleError, file_name, make

    target = _target(to, file_name(found))
    try:
        made = make(found, target, with_samples)
    except BundleError as error:
        complain(str(error))
        raise typer.Exit(1) from None
    if json:
        say_json({"path": str(made.path), "files": dict(made.files), "problems": list(made.problems)})
        return
    for problem in made.problems:
        complain(problem)
    say(printable(f"{made.path}: {', '.join(made.files)}"))
    kept = "with prompts and completions" if with_samples else "without prompts and completions"
    say(f"{kept}, without access tokens; check train.log before you send it")


def _target(to: str | None, name: str) -> Path:
    """Return the archive's path. Raises ConfigError if no archive may be written there."""
    target = (user_path(to) if to is not None else Path(name)).absolute()
    try:
        if target.is_dir():
            target /= name
        taken = target.exists()
    except OSError as error:
        raise ConfigError(Problem("--to", f"cannot be used: {error.strerror or error}", to)) from None
    if target.suffix.lower() != ENDING:
        raise ConfigError(Problem("--to", f"must be an existing folder or a file name ending in {ENDING}", to))
    if not target.parent.is_dir():
        raise ConfigError(Problem("--to", f"the folder {target.parent} does not exist", to))
    if taken:
        raise ConfigError(Problem("--to", "already exists; give another name or remove it", str(target)))
    return target
