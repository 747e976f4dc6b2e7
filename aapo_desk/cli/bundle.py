"""runs export: one archive of a run for a bug report."""

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
    bundle: Annotated[bool, typer.Option("--bundle", help="A zip archive for a bug report.")] = False,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="FILE", help="Where to write it; by default here, named after the run."),
    ] = None,
    with_samples: Annotated[bool, typer.Option("--with-samples", help="Take prompts and completions in too.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document instead of lines.")] = False,
) -> None:
    """Collect what a bug report needs of a run: settings, metrics, events, log, versions, machine.

    Tokens, prompts and completions are left out. The run may be at work, crashed or damaged.
    """
    if not bundle:
        raise ConfigError(
            Problem(
                "--bundle", "is missing; an adapter is taken away by: aapo-desk export RUN --format adapter --to DIR"
            )
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
    say(f"{kept}, without tokens; look through train.log before you send it")


def _target(to: str | None, name: str) -> Path:
    """Raises ConfigError where nothing is to be written."""
    target = (user_path(to) if to is not None else Path(name)).absolute()
    try:
        if target.is_dir():
            target /= name
        taken = target.exists()
    except OSError as error:
        raise ConfigError(Problem("--to", f"cannot be used: {error.strerror or error}", to)) from None
    if target.suffix.lower() != ENDING:
        raise ConfigError(Problem("--to", f"must be a folder that is there, or a name ending in {ENDING}", to))
    if not target.parent.is_dir():
        raise ConfigError(Problem("--to", f"the folder {target.parent} does not exist", to))
    if taken:
        raise ConfigError(Problem("--to", "exists already; give another name or remove it", str(target)))
    return target
