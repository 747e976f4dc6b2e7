"""bench: how fast this device is, in our hands and in others'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated, Any

import typer

from aapo_desk.cli.output import complain, printable, say, say_json, table
from aapo_desk.cli.train import Sets, configuration

LEAST_TRL = "1.16"
COLUMNS = {
    "seconds": "s",
    "seconds_rollout": "rollout",
    "seconds_reward": "reward",
    "seconds_update": "update",
    "tokens_per_second": "tokens/s",
    "peak_mb": "MiB",
}


class Rival(Enum):
    TRL = "trl"


def add_to(app: typer.Typer) -> None:
    app.command("bench")(bench)


def bench(
    preset: Annotated[str, typer.Argument(metavar="[PRESET|FILE]", help="A preset's name, or a YAML file.")] = "demo",
    sets: Sets = None,
    against: Annotated[Rival | None, typer.Option("--against", help="Measure TRL's GRPO trainer beside ours.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How often each is measured, in turn.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="One JSON document instead of lines.")] = False,
) -> None:
    """Measure a preset's steps on this device: time by phase, tokens a second, memory.

    Each of our fast paths beside the plain one, the update beside the device's matmuls, and with --against trl the
    whole step beside TRL's. It takes minutes, beside TRL many.
    """
    config = configuration(preset, sets or [], None)
    if against is Rival.TRL and (missing := _trl_missing()):
        complain(missing)
        raise typer.Exit(2)
    from aapo_desk import launch
    from aapo_desk.bench import BenchError
    from aapo_desk.bench import bench as measure

    def progress(line: str) -> None:
        typer.echo(printable(line), err=True)

    try:
        document = measure(launch.with_absolute_paths(config), against.value if against else None, rounds, progress)
    except BenchError as error:
        complain(str(error))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        complain("cancelled")
        raise typer.Exit(130) from None
    if json:
        say_json(document)
        return
    for line in lines(document):
        say(printable(line))


def _trl_missing() -> str | None:
    """Why TRL cannot be measured, and what to do."""
    from importlib.metadata import PackageNotFoundError, version

    from packaging.version import Version

    advice = "pip install 'aapo-desk[bench]'"
    try:
        found = version("trl")
    except PackageNotFoundError:
        return f"--against trl needs TRL, which is not installed: {advice}"
    if Version(found) < Version(LEAST_TRL):
        return f"--against trl needs TRL {LEAST_TRL} or newer, not {found}: {advice}"
    return None


def lines(document: Mapping[str, Any]) -> list[str]:
    """The bench's document for people."""
    shape = document["shape"]
    rows = [[row["what"], *(_number(row.get(column)) for column in COLUMNS)] for row in document["rows"]]
    return [
        document["device"],
        f"{shape['prompts']} prompts of {_span(shape['prompt_tokens'])} tokens x {shape['group_size']} completions "
        f"of {shape['new_tokens']}",
        *table(["what", *COLUMNS.values()], rows, right=list(COLUMNS.values())),
        *(f"{name} {value:.2f}" for name, value in document["ratios"].items()),
        document["note"],
    ]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
