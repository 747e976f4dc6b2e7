"""The ``queue`` commands: runs that train unattended, one after another."""

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

app = typer.Typer(help="A queue of runs that train one after another: add, list, rm, run, stop.", rich_markup_mode=None)


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="queue")


@app.callback(invoke_without_command=True)
def queue(context: typer.Context, json: Json = False) -> None:
    if context.invoked_subcommand is None:
        _list(json)


@app.command("add")
def add(
    preset: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="Preset name or YAML file.", show_default=False)],
    sets: Sets = None,
    name: Name = None,
    offline: Offline = False,
) -> None:
    """Add a run to the end of the queue, after checking its settings, model and data as train does."""
    from aapo_desk.studies import queue

    entry = queue.add(looked_at(configuration(preset, sets or [], name)), preset=preset, name=name)
    waiting = sum(each.state in queue.WAITING for each in queue.entries())
    say(f"queued as {entry.id}; {waiting} waiting")
    if not queue.is_worked_off():
        say("train the queue with: aapo-desk queue run (with --detach, in the background)")


@app.command("list")
def list_them(json: Json = False) -> None:
    """List the queue in training order."""
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
        say("the queue is running; stop it with: aapo-desk queue stop")
    elif any(entry.state in queue.WAITING for entry in found):
        say("the queue is not running; start it with: aapo-desk queue run")


def _steps(entry: Entry) -> str:
    """Return how many of the planned steps are done."""
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
        typer.Argument(metavar="ENTRY...", help="Entry numbers or names.", show_default=False),
    ] = None,
    ended: Annotated[
        bool, typer.Option("--ended", help="Remove all entries that finished, failed or were stopped.")
    ] = False,
) -> None:
    """Remove entries from the queue. Their runs, if any, are kept; an entry that is training cannot be removed."""
    from aapo_desk.studies import queue

    if not references and not ended:
        raise ConfigError(Problem("ENTRY", "is missing: give the entries to remove, or --ended"))
    wanted = [queue.find_entry(reference) for reference in references or []]
    if ended:
        wanted += [entry for entry in queue.entries() if entry.state in queue.ENDED]
    for number in dict.fromkeys(entry.id for entry in wanted):
        entry = queue.remove(number)
        say(f"removed {entry.id} {printable(entry.label)}")


@app.command("run")
def run(
    detach: Annotated[
        bool, typer.Option("--detach", help="Run in the background, independent of this terminal.")
    ] = False,
    offline: Offline = False,
) -> None:
    """Train the waiting runs one after another, and resume an interrupted one.

    If a run fails, the queue continues with the next. Ctrl-C asks the current run to write a checkpoint and stop; the
    next queue run resumes it. A second Ctrl-C kills it.
    """
    from aapo_desk.studies import queue

    left = [entry for entry in queue.entries() if entry.state not in queue.ENDED]
    if not left:
        complain("no run is waiting in the queue; add one with: aapo-desk queue add PRESET")
        return
    if detach:
        queue.start_supervisor()
        say(f"the queue is running, {len(left)} to go; log: {queue.log_file()}")
        say("show it with: aapo-desk queue list; stop it with: aapo-desk queue stop")
        return
    with interrupts() as stop:
        finished = queue.work_off(lambda line: say(f"{time.strftime('%m-%d %H:%M:%S')}  {printable(line)}"), stop=stop)
    raise typer.Exit(0 if finished else 1)


@app.command("stop")
def stop() -> None:
    """Ask the current run to write a checkpoint and stop, and stop the queue."""
    from aapo_desk.studies import queue

    queue.ask_to_stop()
    say("the current run writes a checkpoint and stops; resume with: aapo-desk queue run")
