"""The ``data`` command: how the data of a preset or a file are read."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from aapo_desk import launch
from aapo_desk.cli.output import printable, say, say_json
from aapo_desk.config import RunConfig, parse_set, resolve, user_path

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
PRESET_SUFFIXES = (".yaml", ".yml", "")
SOURCES = ("file:", "hub:", "reasoning-gym:")
SHOWN_ANSWER = 200


def add_to(app: typer.Typer) -> None:
    app.command("data")(data)


def data(
    what: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|FILE",
            help="Preset name, its YAML file, or data: a JSONL, JSON, CSV or Parquet file, a folder, or hub:NAME.",
            show_default=False,
        ),
    ],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a setting, such as task.answer_column=target."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Preview a data set: columns, counts, what is left out and why, the first problems.

    No model is downloaded. If its tokenizer is on this machine, problems are shown as the prompts the model gets.
    """
    from aapo_desk import tasks

    config = _configuration(what, parse_set(sets or []))
    tasks.check(config.task)
    found = launch.show_data(config, progress=lambda line: None if json else _tell(line))
    if json:
        say_json(found)
    else:
        say("\n".join(lines(found)))


def _configuration(what: str, overrides: Mapping[str, Any]) -> RunConfig:
    """Return a preset's configuration or, for data alone, one without a model. Raises ConfigError."""
    from aapo_desk import presets
    from aapo_desk.models.ids import NO_MODEL

    path = user_path(what)
    named = what.startswith(SOURCES)
    # Any other existing file counts as data, so that .txt or .xlsx is refused with the list of readable formats.
    of_data = path.is_file() and path.suffix.lower() not in PRESET_SUFFIXES
    if named or of_data or path.suffix.lower() in SUFFIXES or (path.is_dir() and not _is_preset(what)):
        frame = {"model": {"id": NO_MODEL}, "task": {"source": what if named else f"file:{what}", "held_out": 0}}
        return resolve(frame, overrides, origin=what)
    return presets.load(what, dict(overrides))


def _is_preset(name: str) -> bool:
    from aapo_desk import presets

    return any(preset.name == name for preset in presets.list_presets())


def _tell(line: str) -> None:
    """Print progress on standard error, so that standard output has only the result."""
    sys.stderr.write(f"{printable(line)}\n")


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return the document as lines of text."""
    facts = [("source", found["source"])]
    if reading := found["reading"]:
        rows = ", ".join(f"{name} {count} rows" for name, count in reading["splits"].items())
        facts += [
            ("splits", f"{rows}; trained on {reading['trained_on']}, held out from {reading['held_out_from']}"),
            ("problem", _column(reading["problem"])),
            ("answer", _column(reading["answer"])),
        ]
    facts.append(("used", f"{found['train']} problems to train on, {found['held_out']} held out"))
    if measured := found["prompts"]:
        facts.append(("prompts", f"{measured['shortest']} to {measured['longest']} tokens{_left_out(measured)}"))
    else:
        facts.append(("prompts", f"not measured: {found['no_prompts']}"))
    facts += [("note", note) for note in found["notes"]]
    told = [printable(f"{name:<8}{text}") for name, text in facts]
    for number, problem in enumerate(found["problems"], 1):
        tokens = f", {problem['prompt_tokens']} tokens" if problem["prompt_tokens"] is not None else ""
        told += ["", printable(f"{number}  {problem['id']}{tokens}")]
        told += [f"   {printable(line)}" for line in (problem["prompt"] or problem["problem"]).rstrip().splitlines()]
        told.append(f"   answer: {_clipped(printable(problem['answer']))}")
    return told


def _column(column: Mapping[str, Any]) -> str:
    others = f"; there are also {', '.join(column['others'])}" if column["others"] else ""
    return f"the column {column['name']}" + (f" (a guess{others})" if column["how"] == "guessed" else "")


def _left_out(measured: Mapping[str, int]) -> str:
    parts = [
        f"{measured[key]} {words}, left out"
        for key, words in (("too_long", "too long"), ("too_short", "too short"))
        if measured[key]
    ]
    return "".join(f"; {part}" for part in parts)


def _clipped(text: str) -> str:
    return text if len(text) <= SHOWN_ANSWER else f"{text[: SHOWN_ANSWER - 1]}…"
