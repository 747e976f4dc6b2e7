"""The command-line program: its commands, and the messages and exit statuses that errors become."""

from __future__ import annotations

import errno
import io
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from aapo_desk import __version__
from aapo_desk.cli import (
    bench,
    bundle,
    chat,
    compare,
    data,
    doctor,
    evaluate,
    export,
    fit,
    fork,
    presets,
    queue,
    rewards,
    runs,
    study,
    train,
)
from aapo_desk.cli.output import complain, interactive
from aapo_desk.cli.start import Ascii, Offline, ReadOnly, open_screen
from aapo_desk.config import ConfigError
from aapo_desk.hub import HubError
from aapo_desk.launch import LaunchError
from aapo_desk.store import StoreError, home
from aapo_desk.store.full import LITTLE, free, trouble

PROGRAM = "aapo-desk"
DONE, FAILED, WRONG_USE = 0, 1, 2
NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST)

app = typer.Typer(
    name=PROGRAM,
    help="Fine-tune a small language model with AAPO and watch it learn. Without a command, open the terminal UI.",
    epilog="RUN is a run's id, a unique start of it, its name, or: last. Exit status: 0 done, 1 failed, 2 usage error.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
train.add_to(app)
fork.add_to(app)
runs.add_to(app)
bundle.add_to(runs.app)
queue.add_to(app)
presets.add_to(app)
fit.add_to(app)
rewards.add_to(app)
data.add_to(app)
bench.add_to(app)
compare.add_to(app)
study.add_to(app)
doctor.add_to(app)
evaluate.add_to(app)
export.add_to(app)
chat.add_to(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def desk(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    read_only: ReadOnly = False,
    ascii_only: Ascii = None,
    offline: Offline = False,
) -> None:
    if context.invoked_subcommand is not None:
        if read_only:
            command = context.invoked_subcommand
            advice = (
                "must come after the command: aapo-desk watch RUN --read-only"
                if command == "watch"
                else f"is not supported by {command}"
            )
            raise typer.BadParameter(f"--read-only {advice}")
        return
    if not interactive():
        complain("the terminal UI needs an interactive terminal; to see the commands, run: aapo-desk --help")
        raise typer.Exit(WRONG_USE)
    raise typer.Exit(open_screen(read_only=read_only, ascii_only=ascii_only))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (by default the process's own) and return its exit status.

    Errors become messages on standard error; none is raised.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows ? instead of raising an error
    try:
        status = app(arguments, prog_name=PROGRAM, standalone_mode=False)
        return status if isinstance(status, int) else DONE
    except ConfigError as error:
        complain(str(error), prefix="")
        return WRONG_USE
    except (LaunchError, StoreError, HubError) as error:
        complain(str(error))
        return FAILED
    except typer.TyperException as error:  # a usage error
        _complain_of_use(error)
        return error.exit_code
    except typer.Abort:
        complain("cancelled; nothing was done")
        return FAILED
    except Exception as error:  # noqa: BLE001 - the last place to turn an error into a message for the user
        complain(_of_the_disk(error) or _unexpected(error))
        return FAILED


def _complain_of_use(error: typer.TyperException) -> None:
    """Print a usage error with the value given; for a command group called without a command, print its help."""
    message = error.format_message()
    if message.startswith("Usage: "):
        complain(message, prefix="")
        return
    said = " ".join(message.split()).replace(": Value error, ", ": ").rstrip(".")
    if isinstance(error.__cause__, ValidationError):
        given = repr(error.__cause__.errors()[0]["input"])
        said += "" if given in said else f", not {given}"
    complain(f"{said}{'' if said.endswith('?') else '.'} See: {_command_of(error)} --help")


def _command_of(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return str(context.command_path) if context else PROGRAM


def _of_the_disk(error: Exception) -> str | None:
    """Return a message about a file that cannot be written, or None if ``error`` is not an OSError."""
    if not isinstance(error, OSError):
        return None
    if not isinstance(error.filename, str):
        if error.errno == errno.ENOSPC and free(home()) > LITTLE:  # such as standard output redirected to another disk
            return f"the disk written to is full (not the disk of {home()}); free some space on it, or write elsewhere"
        return trouble(error, home())
    if Path(error.filename).is_relative_to(home()) and not home().is_dir() and error.errno in NO_FOLDER:
        return f"cannot create the folder {home()} ({error.strerror}); set AAPO_DESK_HOME to another folder"
    return trouble(error, Path(error.filename).parent)


def _unexpected(error: Exception) -> str:
    """Return one line about an unforeseen error, with the file that its traceback was written to."""
    said = " ".join(str(error).split())
    line = f"unexpected error: {type(error).__name__}: {said}" if said else f"unexpected {type(error).__name__}"
    if os.environ.get("AAPO_DESK_DEBUG") == "1":
        traceback.print_exception(error)
        return line
    try:
        log = _write_traceback(error)
    except OSError:
        return f"{line} (set AAPO_DESK_DEBUG=1 to see the traceback)"
    return f"{line} (traceback: {log}; set AAPO_DESK_DEBUG=1 to print it here)"


def _write_traceback(error: Exception) -> Path:
    folder = home() / "logs"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    log.touch(mode=0o600)
    log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return log
