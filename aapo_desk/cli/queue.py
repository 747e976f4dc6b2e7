"""queue: runs that train one after another, in their turn, while nobody looks."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from aapo_desk.cli.follow import interrupts
from aapo_desk.cli.output import complain, printable, say, say_json, table
from aapo_desk.cli.runs import Json
from aapo_desk.cli.start import Offline
from aapo_desk.cli.train import Name, Sets, configuration, looked_at
from aapo_desk.config import ConfigError, Problem

if TYPE_CHECKING:
    from aapo_desk.studies.queue import Entry

app = typer.Typer(help="Runs that train one after another: add, list, rm, run, stop.", rich_markup_mode=None)


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="queue")


@app.callback(invoke_without_command=True)
def queue(context: typer.Context, json: Json = False) -> None:
    if context.invoked_subcommand is None:
        _list(json)


@app.command("add")
def add(
    preset: Annotated[
        str, typer.Argument(metavar="PRESET|FILE", help="A preset's name, or a YAML file.", show_default=False)
    ],
    sets: Sets = None,
    name: Name = None,
    offline: Offline = False,
) -> None:
    """Put a run at the end of the queue, once its settings, model and data have been looked at as train does."""
    from aapo_desk.studies import queue

    entry = queue.add(looked_at(configuration(preset, sets or [], name)), preset=preset, name=name)
    waiting = sum(each.state in queue.WAITING for each in queue.entries())
    say(f"queued as {entry.id}; {waiting} waiting")
    if not queue.is_worked_off():
        say("train them one after another: aapo-desk queue run (--detach: in the background)")


@app.command("list")
def list_them(json: Json = False) -> None:
    """List the queue, in the order of training."""
    _list(json)


def _list(json: bool) -> None:
    from aapo_desk.studies import queue

    found = queue.entries()
    for words in queue.unreadable():
        complain(words)
    if json:
        say_json([asdict(entry) for entry in found])
        return
    if not found:
        complain("the queue is empty; add a run with: aapo-desk queue add PRESET")
        return
    rows = [
        [entry.id, entry.state, printable(entry.name or "-"), printable(entry.preset), _steps(entry), entry.run or "-"]
        for entry in found
    ]
    for line in table(["entry", "state", "name", "from", "step", "run"], rows, right=("step",), shorten="from"):
        say(line)
    for entry in found:
        if entry.reason:
            say(f"{entry.id} {entry.state}: {printable(entry.reason)}")
    if queue.is_worked_off():
        say("it is being worked off; end that with: aapo-desk queue stop")
    elif any(entry.state in queue.WAITING for entry in found):
        say("nothing works it off; start with: aapo-desk queue run")


def _steps(entry: Entry) -> str:
    """How many steps are done of how many."""
    from aapo_desk.store import RunDirectory, budget_in, budget_of, progress, runs_folder

    planned = entry.config.get("run")
    steps = planned.get("steps") if isinstance(planned, dict) else None
    if not entry.run:
        return progress(0, steps or 0, budget_in(planned))
    status = RunDirectory(runs_folder() / entry.run).read_status()
    return progress(int(status.get("step") or 0), int(status.get("steps") or steps or 0), budget_of(status))


@app.command("rm")
def remove(
    references: Annotated[
        list[str] | None,
        typer.Argument(metavar="ENTRY...", help="Numbers or names of the entries.", show_default=False),
    ] = None,
    ended: Annotated[bool, typer.Option("--ended", help="All that have ended, well or not.")] = False,
) -> None:
    """Take entries off the queue. Their runs, where there are any, stay; one that trains is refused."""
    from aapo_desk.studies import queue

    if not references and not ended:
        raise ConfigError(Problem("ENTRY", "name entries to remove, or give --ended"))
    wanted = [queue.find_entry(reference) for reference in references or []]
    if ended:
        wanted += [entry for entry in queue.entries() if entry.state in queue.ENDED]
    for number in dict.fromkeys(entry.id for entry in wanted):
        entry = queue.remove(number)
        say(f"removed {entry.id} {printable(entry.label)}")


@app.command("run")
def run(
    detach: Annotated[bool, typer.Option("--detach", help="In the background, and go on when this ends.")] = False,
    offline: Offline = False,
) -> None:
    """Train what waits, one run after another, and go on with what was cut off.

    A run that fails holds nobody up. Ctrl-C asks the run that trains to write a checkpoint and stop, and the next
    queue run goes on with it; a second Ctrl-C ends it at once.
    """
    from aapo_desk.studies import queue

    left = [entry for entry in queue.entries() if entry.state not in queue.ENDED]
    if not left:
        complain("nothing waits in the queue; add a run with: aapo-desk queue add PRESET")
        return
    if detach:
        queue.start_supervisor()
        say(f"the queue is being worked off, {len(left)} to go; log: {queue.log_file()}")
        say("see it with: aapo-desk queue list; end it with: aapo-desk queue stop")
        return
    with interrupts() as stop:
        finished = queue.work_off(lambda line: say(f"{time.strftime('%m-%d %H:%M:%S')}  {printable(line)}"), stop=stop)
    raise typer.Exit(0 if finished else 1)


@app.command("stop")
def stop() -> None:
    """Ask the run that trains to write a checkpoint and stop, and whoever works the queue off to end."""
    from aapo_desk.studies import queue

    queue.ask_to_stop()
    say("it writes a checkpoint and stops; go on with: aapo-desk queue run")
