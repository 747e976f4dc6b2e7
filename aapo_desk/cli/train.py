"""The commands that start, resume or watch a run: ``train``, ``demo``, ``watch``, ``resume``."""

from __future__ import annotations

from typing import Annotated

import typer

from aapo_desk import launch
from aapo_desk.cli.follow import Follower, follow
from aapo_desk.cli.output import complain, interactive, printable, say
from aapo_desk.cli.start import Ascii, Offline, ReadOnly, open_screen
from aapo_desk.config import RunConfig, parse_set
from aapo_desk.store import RunDirectory, check_name, find_run

Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a setting, such as rollout.group_size=16. Repeatable."),
]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the run (default: its id).")]
Detach = Annotated[bool, typer.Option("--detach", help="Start the run, print how to watch it, and exit.")]
Headless = Annotated[bool, typer.Option("--headless", help="Print lines of text instead of opening the terminal UI.")]
Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Id, unique start of an id, name, or: last.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    app.command("demo")(demo)
    app.command("train")(train)
    app.command("watch")(watch)
    app.command("resume")(resume)


def demo(
    sets: Sets = None,
    name: Name = None,
    detach: Detach = False,
    headless: Headless = False,
    ascii_only: Ascii = None,
    offline: Offline = False,
) -> None:
    """Fine-tune a small real model on sums.

    Takes minutes, even without a GPU. The options are those of train.
    """
    _train("demo", sets, name, detach, headless, ascii_only)


def train(
    preset: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="Preset name or YAML file.", show_default=False)],
    sets: Sets = None,
    name: Name = None,
    detach: Detach = False,
    headless: Headless = False,
    ascii_only: Ascii = None,
    offline: Offline = False,
) -> None:
    """Fine-tune a model with the settings of a preset or a YAML file.

    Training continues after the terminal UI is closed. With --headless, Ctrl-C asks the run to write a checkpoint and
    stop; a second Ctrl-C kills it.
    """
    _train(preset, sets, name, detach, headless, ascii_only)


def _train(
    preset: str, sets: list[str] | None, name: str | None, detach: bool, headless: bool, ascii_only: bool | None
) -> None:
    config = configuration(preset, sets or [], name)
    if interactive() and not (headless or detach):
        raise typer.Exit(open_screen(start=(config, name), ascii_only=ascii_only))
    run = _start(config, name)
    if detach:
        say_how_to_reach(run)
        return
    say(f"run {run.name} started; you can also watch it with: aapo-desk watch {run.id}")
    raise typer.Exit(follow(Follower(run), ends_the_run=True))


def configuration(preset: str, sets: list[str], name: str | None) -> RunConfig:
    """Return the configuration to run. Raises ConfigError for everything that can be checked without a model."""
    from aapo_desk import presets

    config = presets.load(preset, parse_set(sets))
    if name is not None:
        check_name(name)
    launch.check(config)
    launch.find_start(config)
    return config


def _start(config: RunConfig, name: str | None) -> RunDirectory:
    """Run the preflight, printing lines of text, then start the trainer."""
    return launch.start(looked_at(config), name)


def looked_at(config: RunConfig) -> RunConfig:
    """Run a preflight, print what it finds, and return the configuration pinned to the commits that it found.

    Raises what ``launch.preflight`` raises; exits the program if the user cancels.
    """
    return look(config).pin(config)


def look(config: RunConfig, quiet: bool = False) -> launch.Preflight:
    """Run a preflight and return what it finds, printed unless ``quiet``. Raises and exits like ``looked_at``."""

    def tell(line: str) -> None:
        if not quiet:
            say(printable(line))

    try:
        found = launch.preflight(config, progress=tell)
    except KeyboardInterrupt:
        complain("cancelled; nothing was started")
        raise typer.Exit(130) from None
    for line in _description(config, found):
        tell(line)
    return found


def _description(config: RunConfig, found: launch.Preflight) -> list[str]:
    dropped = found.dropped + found.dropped_held_out
    commit = f", commit {found.revision[:7]}" if found.revision else ""
    lines = [
        f"model {config.model.id}{commit}",
        f"task {config.task.source}: {found.train} problems to train on, {found.held_out} held out, "
        f"longest prompt {found.longest_prompt} tokens",
    ]
    if dropped:
        bounds = f"task.max_prompt_tokens={config.task.max_prompt_tokens}"
        if config.task.min_prompt_tokens:
            bounds += f" or shorter than task.min_prompt_tokens={config.task.min_prompt_tokens}"
        lines.append(f"dropped {dropped} problems: longer than {bounds}")
    return [printable(line) for line in lines]


def watch(run: Run, headless: Headless = False, read_only: ReadOnly = False, ascii_only: Ascii = None) -> None:
    """Watch a run that is training or has ended. Leaving never stops the run."""
    found = find_run(run)
    if interactive() and not headless:
        raise typer.Exit(open_screen(run=found, read_only=read_only, ascii_only=ascii_only))
    raise typer.Exit(follow(Follower(found), ends_the_run=False))


def resume(
    run: Run,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            metavar="N",
            min=1,
            help="Extend the run to N steps in total, even if it has finished.",
            show_default=False,
        ),
    ] = None,
    detach: Detach = False,
    headless: Headless = False,
    ascii_only: Ascii = None,
    offline: Offline = False,
) -> None:
    """Unpause a run, or resume it from its last checkpoint; with --steps, beyond the planned end.

    With a constant learning rate (the default), an extended run ends like one planned with that many steps.
    """
    found = find_run(run)
    follower = Follower(found)
    if headless or not interactive():
        follower.skip()
    launch.resume(found, steps=steps)
    follower.read_plan()
    if detach:
        say_how_to_reach(found)
        return
    if interactive() and not headless:
        raise typer.Exit(open_screen(run=found, ascii_only=ascii_only))
    say(f"run {found.name} resumed")
    raise typer.Exit(follow(follower, ends_the_run=True))


def say_how_to_reach(run: RunDirectory) -> None:
    """Print the commands that watch and stop a run started in the background."""
    say(f"run {run.name} started" if run.name == run.id else f"run {run.name} started ({run.id})")
    say(f"watch: aapo-desk watch {run.id}")
    say(f"stop:  aapo-desk stop {run.id}")
