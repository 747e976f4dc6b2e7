"""presets: list and show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from aapo_desk.cli.output import printable, say, say_json, table

if TYPE_CHECKING:
    from aapo_desk.presets import Preset

Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of lines.")]

app = typer.Typer(help="The presets: ready-made configurations.", rich_markup_mode=None)


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="presets")


@app.callback(invoke_without_command=True)
def presets(context: typer.Context, json: Json = False) -> None:
    if context.invoked_subcommand is None:
        _list(json)


@app.command("list")
def list_them(json: Json = False) -> None:
    """List the presets: the shipped ones and your own."""
    _list(json)


@app.command("show")
def show(
    preset: Annotated[
        str, typer.Argument(metavar="PRESET|FILE", help="A preset's name, or a YAML file.", show_default=False)
    ],
    json: Json = False,
) -> None:
    """Show a preset's file; with --json the whole configuration, defaults filled in."""
    from aapo_desk.presets import find, load

    found = find(preset)
    if json:
        say_json(_facts(found) | {"config": load(preset).model_dump(mode="json")})
        return
    for line in found.path.read_text(encoding="utf-8").splitlines():
        say(printable(line))


def _list(json: bool) -> None:
    from aapo_desk.presets import list_presets

    found = list_presets()
    if json:
        say_json([_facts(preset) for preset in found])
        return
    rows = [[preset.name, preset.error or preset.title] for preset in found]
    for line in table(["preset", "what it is"], rows):
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
