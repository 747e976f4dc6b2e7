"""The ``presets`` commands: list, show and check presets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from aapo_desk.cli.output import printable, say, say_json, table

if TYPE_CHECKING:
    from aapo_desk.preset_check import Outcome
    from aapo_desk.presets import Preset

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

app = typer.Typer(help="List, show and check presets: ready-made configurations.", rich_markup_mode=None)


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="presets")


@app.callback(invoke_without_command=True)
def presets(context: typer.Context, json: Json = False) -> None:
    if context.invoked_subcommand is None:
        _list(json)


@app.command("list")
def list_them(json: Json = False) -> None:
    """List the presets, shipped and your own."""
    _list(json)


@app.command("show")
def show(
    preset: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="Preset name or YAML file.", show_default=False)],
    json: Json = False,
) -> None:
    """Show a preset's file; with --json, show the whole configuration including defaults."""
    from aapo_desk.presets import find, load

    found = find(preset)
    if json:
        say_json(_facts(found) | {"config": load(preset).model_dump(mode="json")})
        return
    for line in found.path.read_text(encoding="utf-8").splitlines():
        say(printable(line))


@app.command("check")
def check(
    presets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PRESET|FILE", help="Preset names or YAML files (default: all presets).", show_default=False
        ),
    ] = None,
    vram: Annotated[
        float | None,
        typer.Option(metavar="GB", min=0.1, help="GPU memory to fit into (default: from the preset's name)."),
    ] = None,
    json: Json = False,
) -> None:
    """Check without downloads that presets are valid, match their names and fit their memory.

    Exit status 1 means that a preset is bad."""
    from aapo_desk.preset_check import check_preset
    from aapo_desk.presets import list_presets, locate

    found = [locate(name) for name in presets] if presets else list_presets()
    outcomes = [check_preset(preset, vram) for preset in found]
    if json:
        say_json([_outcome(outcome) for outcome in outcomes])
    else:
        for line in table(["preset", "check", "what was found"], [_row(outcome) for outcome in outcomes]):
            say(printable(line))
    if any(outcome.problems for outcome in outcomes):
        raise typer.Exit(1)


def _row(outcome: Outcome) -> list[str]:
    if outcome.problems:
        return [outcome.name, "bad", "; ".join(outcome.problems)]
    if outcome.fit is None:
        return [outcome.name, "ok", outcome.note]
    room, least, full = (gigabytes(size) for size in (outcome.fit.room.free, outcome.fit.least, outcome.fit.full))
    return [outcome.name, "ok", f"{outcome.fit.verdict} in {room}: at least {least}, {full} for full speed"]


def gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GB".replace(".0 GB", " GB")


def _outcome(outcome: Outcome) -> dict[str, Any]:
    found = outcome.fit
    return {
        "name": outcome.name,
        "own": outcome.own,
        "ok": not outcome.problems,
        "problems": list(outcome.problems),
        "verdict": found.verdict if found else None,
        "least_bytes": found.least if found else None,
        "full_bytes": found.full if found else None,
        "room_bytes": found.room.free if found else None,
        "note": outcome.note,
    }


def _list(json: bool) -> None:
    from aapo_desk.presets import list_presets

    found = list_presets()
    if json:
        say_json([_facts(preset) for preset in found])
        return
    rows = [[preset.name, "yours" if preset.own else "", preset.error or preset.title] for preset in found]
    for line in table(["preset", "", "what it is"], rows, shorten="what it is"):
        say(printable(line))


def _facts(preset: Preset) -> dict[str, Any]:
    return {
        "name": preset.name,
        "title": preset.title,
        "notes": preset.notes,
        "own": preset.own,
        "path": str(preset.path),
        "error": preset.error,
    }
