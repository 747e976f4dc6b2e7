"""The ``fork`` command: a new run from a checkpoint of another one."""

from __future__ import annotations

from typing import Annotated

import typer

from aapo_desk import launch
from aapo_desk.cli.follow import Follower, follow
from aapo_desk.cli.output import interactive, printable, say
from aapo_desk.cli.start import Ascii, Offline, open_screen
from aapo_desk.cli.train import Detach, Headless, Name, Run, Sets, looked_at, say_how_to_reach
from aapo_desk.config import parse_set
from aapo_desk.store import RunReader, check_name, find_run, forked_words


def add_to(app: typer.Typer) -> None:
    app.command("fork")(fork)


def fork(
    run: Run,
    step: Annotated[
        int | None,
        typer.Option("--step", metavar="N", help="Step of the checkpoint (default: the newest).", show_default=False),
    ] = None,
    sets: Sets = None,
    name: Name = None,
    detach: Detach = False,
    headless: Headless = False,
    ascii_only: Ascii = None,
    offline: Offline = False,
) -> None:
    """Start a new run from a checkpoint of another one, with other settings.

    The new run has the old one's history up to the checkpoint; with unchanged settings it ends like the old one. The
    model and the adapter's shape cannot be changed.
    """
    parent = find_run(run)
    checkpoint = launch.kept_checkpoint(parent, step)
    config = launch.forked_config(parent, checkpoint.step, parse_set(sets or []))
    if name is not None:
        check_name(name)
    launch.check(config)
    config = looked_at(config)
    say(f"copying the history of {checkpoint.step} steps")
    child = launch.fork(parent, checkpoint, config, name)
    follower = Follower(child)
    follower.skip()
    say(printable(forked_words(RunReader(child).facts()["parent"])))
    if detach:
        say_how_to_reach(child)
        return
    if interactive() and not headless:
        raise typer.Exit(open_screen(run=child, ascii_only=ascii_only))
    say(f"run {child.name} started; you can also watch it with: aapo-desk watch {child.id}")
    raise typer.Exit(follow(follower, ends_the_run=True))
