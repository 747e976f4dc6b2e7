"""The ``runs`` commands (list, show and remove runs) and ``pause``, ``stop`` and ``checkpoint`` for a running one."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from aapo_desk import launch
from aapo_desk.cli.follow import adapters
from aapo_desk.cli.lines import base_against_tuned
from aapo_desk.cli.output import complain, interactive, printable, say, say_json, table
from aapo_desk.cli.train import Run
from aapo_desk.config import ConfigError, Problem, departures
from aapo_desk.health import standing
from aapo_desk.store import (
    TROUBLE,
    RunDirectory,
    RunReader,
    StoreError,
    budget_of,
    event_words,
    find_run,
    forked_words,
    list_runs,
    progress,
    read_json,
)
from aapo_desk.store.unscorable import LEFT_OUT, UNSCORABLE_AS

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

MOST_TROUBLE = 5
"""How many of a run's latest trouble events are shown."""

app = typer.Typer(help="List, show, remove and export runs.", rich_markup_mode=None)


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="runs")
    parent.command("pause")(pause)
    parent.command("stop")(stop)
    parent.command("checkpoint")(checkpoint)


@app.callback(invoke_without_command=True)
def runs(context: typer.Context, json: Json = False) -> None:
    if context.invoked_subcommand is None:
        _list(json)


@app.command("list")
def list_them(json: Json = False) -> None:
    """List the runs, the newest first."""
    _list(json)


@app.command("show")
def show(run: Run, json: Json = False) -> None:
    """Show a run: state, last step, evaluations, folder."""
    found = find_run(run)
    facts = summary(found)
    config = found.read_settings()
    reader = RunReader(found)
    delta = reader.poll()
    evaluations = {step: data for step, name, data in delta.evaluations if name == "held_out"}
    probed = next((event.data for event in reversed(delta.events) if event.kind == "probe"), None)
    warmed = next((event.data for event in reversed(delta.events) if event.kind == "warm_start"), None)
    alarms = standing((event.kind, event.data) for event in delta.events)
    last = reader.last_metrics()
    parent = reader.facts().get("parent")
    adapter = next(reversed(adapters(found).values()), None)
    if json:
        for data in evaluations.values():
            for answers in ("greedy", "sampled"):
                data[answers].pop("scores", None)  # one number per problem is too much for a summary
                data[answers].setdefault(UNSCORABLE_AS, LEFT_OUT)  # older versions left them out without recording it
        say_json(
            facts
            | {
                "adapter": str(adapter) if adapter else None,
                "metrics": last[1] if last else {},
                "probe": probed,
                "warm_start": warmed,
                "parent": parent,
                "alarms": [alarm.as_json() for alarm in alarms],
                "evaluations": {str(step): data for step, data in evaluations.items()},
                "exports": exports(found),
                "config": config or None,
            }
        )
        return
    for key, value in _about(found, facts, config, adapter, parent, probed, warmed).items():
        say(f"{key:<10} {printable(str(value))}")
    for alarm in alarms:
        said = f"{alarm.severity}, since step {alarm.since}: {alarm.title}. {alarm.message} Try: {alarm.advice}"
        say(f"{'alarm':<10} {printable(said)}")
    for event in [event for event in delta.events if event.kind in TROUBLE][-MOST_TROUBLE:]:
        say(f"{'trouble':<10} {printable(f'step {event.step}: {event_words(event.kind, event.data)}')}")
    for record in exports(found):
        form = f"{record.get('form')} {record.get('quant') or ''}".rstrip()
        ending = ", broken" if record.get("broken") else ""
        said = f"{form} of step {record.get('step')}: {record.get('path')}{ending}"
        say(f"{'export':<10} {printable(said)}")
    for line in base_against_tuned(evaluations):
        say(line)


def _about(
    run: RunDirectory,
    facts: dict[str, Any],
    config: dict[str, Any],
    adapter: Path | None,
    parent: dict[str, Any] | None,
    probed: dict[str, Any] | None,
    warmed: dict[str, Any] | None,
) -> dict[str, str]:
    """Return what is known about a run: one text for each label."""
    lines = {
        "run": facts["name"] if facts["name"] == facts["id"] else f"{facts['name']} ({facts['id']})",
        "state": facts["state"],
        "step": _progress(facts, " of "),
        "reward": _number(facts["reward"]),
        "model": facts["model"],
        "task": facts["task"],
        "algorithm": _algorithm(config),
        "created": facts["created"],
        "folder": facts["path"],
        "log": str(run.log),
        "adapter": str(adapter) if adapter else "none yet",
    }
    if started := _inside(config, "lora", "start_from"):
        lines["reference"] = f"the base model with the frozen adapter that training started from: {started}"
    if parent:
        lines["from"] = forked_words(parent)
    if facts["problem"]:
        lines["problem"] = facts["problem"]
    if probed:
        lines["memory"] = event_words("probe", probed)
    if warmed:
        lines["warm start"] = event_words("warm_start", warmed).removeprefix("warm start: ")
    return lines


@app.command("rm")
def remove(
    references: Annotated[list[str], typer.Argument(metavar="RUN...", help="The runs to remove.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Remove runs with all their checkpoints. A running run cannot be removed."""
    found = [find_run(reference) for reference in references]
    if not yes and not interactive():
        raise ConfigError(Problem("--yes", "is required to remove a run without a terminal to confirm in"))
    for run in found:
        if not yes:
            typer.confirm(f"Remove run {printable(run.name)} with all its checkpoints?", abort=True)
        name = run.name
        launch.remove(run)
        say(f"removed {printable(name)}")


def pause(run: Run) -> None:
    """Ask a run to pause after its current step."""
    _ask(run, "pause", "it pauses after this step; resume with: aapo-desk resume {id}")


def stop(run: Run) -> None:
    """Ask a run to write a checkpoint and stop."""
    _ask(run, "stop", "it writes a checkpoint and stops; resume with: aapo-desk resume {id}")


def checkpoint(run: Run) -> None:
    """Ask a run to write a checkpoint after its current step."""
    _ask(run, "checkpoint", "it writes a checkpoint after this step")


def _ask(reference: str, command: launch.Command, answer: str) -> None:
    found = find_run(reference)
    launch.request(found, command)
    say(f"run {printable(found.name)}: {answer.format(id=found.id)}")


def _list(json: bool) -> None:
    found = [summary(run) for run in list_runs()]
    if json:
        say_json(found)
        return
    if not found:
        complain("there are no runs yet; start one with: aapo-desk demo")
        return
    header = ["run", "state", "step", "reward", "model", "created"]
    rows = [
        [
            printable(facts["name"]),
            facts["state"],
            _progress(facts),
            _number(facts["reward"]),
            printable(_short_model(str(facts["model"]))),
            facts["created"].replace("T", " ")[:16],
        ]
        for facts in found
    ]
    for line in table(header, rows, right=("step", "reward"), shorten="model"):
        say(line)


def _progress(facts: dict[str, Any], of: str = "/") -> str:
    """Return how far a run is, relative to its steps or budget."""
    return progress(int(facts["step"] or 0), int(facts["steps"] or 0), budget_of(facts), of)


def summary(run: RunDirectory) -> dict[str, Any]:
    """Return the facts that a list shows about a run. A run that cannot be read has the reason as its ``problem``.

    The configuration is read without validation, so that a run of another version does not break the whole list.
    """
    config = run.read_settings()
    status = run.read_status()
    facts: dict[str, Any] = {
        "id": run.id,
        "name": run.name,
        "state": "unknown",
        "step": status.get("step", 0),
        "steps": _inside(config, "run", "steps"),
        "budget": asdict(budget) if (budget := budget_of(status)) else None,
        "reward": None,
        "model": _inside(config, "model", "id"),
        "task": _inside(config, "task", "source"),
        "algorithm": _inside(config, "algorithm", "name"),
        "created": datetime.fromtimestamp(run.config.stat().st_mtime).astimezone().isoformat(timespec="seconds"),
        "path": str(run.path),
        "problem": None,
    }
    try:
        facts["state"] = launch.state(run)
        facts["problem"] = launch.reason(run)
        if last := RunReader(run).last_metrics():
            facts["step"], facts["reward"] = last[0], last[1].get("reward")
    except (StoreError, OSError, sqlite3.Error) as error:
        facts["problem"] = str(error)
    return facts


def exports(run: RunDirectory) -> list[dict[str, Any]]:
    """Return the records of the run's exports, sorted by file name (oldest first)."""
    return [record for path in sorted(run.exports.glob("*.json")) if (record := read_json(path))]


def _inside(config: dict[str, Any], section: str, key: str) -> Any:
    """Return a value of the configuration, or None if the section or the key is missing (in runs of other versions)."""
    part = config.get(section)
    return part.get(key) if isinstance(part, dict) else None


def _algorithm(config: dict[str, Any]) -> str:
    """Return the algorithm's name and how its settings depart from the paper."""
    name = _inside(config, "algorithm", "name")
    decisive = (
        ("algorithm", "reference"),
        ("task", "difficulty"),
        ("algorithm", "pairing"),
        ("lora", "start_from"),
        ("warm_start", "solutions"),
    )
    return f"{name}{departures(name, *(_inside(config, section, key) for section, key in decisive))}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _short_model(model: str) -> str:
    """Return a model's id without its download source, shortened to 36 characters."""
    if model.startswith("pip:"):
        model = model.partition("#")[0].rpartition("/")[2].removesuffix(".gguf")
    return model if len(model) <= 36 else f"…{model[-35:]}"
