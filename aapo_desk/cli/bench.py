"""The ``bench`` command: how fast this device trains, with this program and with TRL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aapo_desk.cli.output import complain, printable, say, say_json, table
from aapo_desk.cli.start import Offline
from aapo_desk.cli.train import Sets, configuration

if TYPE_CHECKING:
    from aapo_desk.config import RunConfig

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
    preset: Annotated[str, typer.Argument(metavar="[PRESET|FILE]", help="Preset name or YAML file.")] = "demo",
    sets: Sets = None,
    against: Annotated[
        Rival | None, typer.Option("--against", help="Also measure TRL's GRPO trainer, for comparison.")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How many times each is measured, in turn.")] = 3,
    ui: Annotated[bool, typer.Option("--ui", help="Measure the terminal UI on a long run instead.")] = False,
    steps: Annotated[
        int, typer.Option("--steps", min=100, help="With --ui: the length of that run, in steps.")
    ] = 100_000,
    training: Annotated[
        bool, typer.Option("--training", help="With --ui: measure only how much the UI slows the preset's training.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
    offline: Offline = False,
) -> None:
    """Measure a preset's training steps on this device: time by phase, tokens per second, memory.

    Compares each fast path with the plain one, the update with the device's matmul speed and, with --against trl, the
    whole step with TRL's. Takes minutes, with TRL many minutes. With --ui, measures the terminal UI instead.
    """
    if (training and not ui) or (ui and against):
        complain("--training needs --ui, and --against cannot be combined with --ui")
        raise typer.Exit(2)
    if ui:
        _bench_ui(configuration(preset, sets or [], None) if training else None, steps, rounds, json)
        return
    config = configuration(preset, sets or [], None)
    if against is Rival.TRL and (missing := _trl_missing()):
        complain(missing)
        raise typer.Exit(2)
    if config.model.backend == "unsloth":
        _progress("bench measures the transformers backend instead of unsloth")
    from aapo_desk import launch
    from aapo_desk.bench import bench as measure

    document = _measured(
        lambda: measure(launch.with_absolute_paths(config), against.value if against else None, rounds, _progress)
    )
    if json:
        say_json(document)
        return
    for line in lines(document):
        say(printable(line))


def _bench_ui(config: RunConfig | None, steps: int, rounds: int, json: bool) -> None:
    """Measure the UI on a long run or, given a configuration, how much the UI slows its training; print the result."""
    if config is None:
        from aapo_desk.bench.ui import bench_ui

        document = _measured(lambda: bench_ui(steps, _progress))
    else:
        from aapo_desk.bench.ui_training import bench_training

        document = _measured(lambda: bench_training(config, rounds, _progress))
    if json:
        say_json(document)
        return
    for line in ui_lines(document):
        say(printable(line))


def _progress(line: str) -> None:
    typer.echo(printable(line), err=True)


def _measured(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the measurement's document. A failure or Ctrl-C prints a message and exits."""
    from aapo_desk.bench.jobs import BenchError

    try:
        return measure()
    except BenchError as error:
        complain(str(error))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        complain("cancelled")
        raise typer.Exit(130) from None


def _trl_missing() -> str | None:
    """Return why TRL cannot be measured and how to install it, or None if it can be measured."""
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
    """Return the benchmark's document as lines of text."""
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


def ui_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the document of the UI benchmark as lines of text."""
    if "pairs" in document:
        rows = [[f"{pair['without']:.3f}", f"{pair['with']:.3f}"] for pair in document["pairs"]]
        slower = document["slowdown_percent"]
        return [
            "seconds per step, measured in pairs",
            *table(["without the UI", "with the UI"], rows, right=["without the UI", "with the UI"]),
            f"slower by {slower['mean']:.1f} % [{slower['low']:.1f}, {slower['high']:.1f}]",
            f"the UI: {document['cpu_percent']:.1f} % of a core, {document['reads']} reads, "
            f"the longest {document['longest_read_ms']:.1f} ms; write-ahead log up to {document['wal_mb']:.1f} MiB",
        ]
    home = document["home"]
    names = [name for name, value in document.items() if isinstance(value, float)]
    rows = [[name, f"{document[name]:.2f}", f"{home[name]:.2f}" if name in home else ""] for name in names]
    return [
        f"{document['steps']} steps in a terminal of {document['terminal']}",
        *table(["", "monitor", "Home, ten runs"], rows, right=["monitor", "Home, ten runs"]),
        document["note"],
    ]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
