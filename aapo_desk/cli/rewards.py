"""The ``rewards`` commands: try rewards on completions from a file, scored as a run would score them."""

from __future__ import annotations

import difflib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aapo_desk.cli.output import complain, printable, say, say_json, table
from aapo_desk.config import ConfigError, Problem, RewardConfig, resolve, user_path

if TYPE_CHECKING:
    from aapo_desk.rewards import Completion, Score
    from aapo_desk.tasks.tables import Table

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
WORKERS = 2
MOST_ERRORS = 10
COMPLETION, ANSWER = "--completion-column", "--answer-column"

app = typer.Typer(help="Try rewards on completions.", rich_markup_mode=None, no_args_is_help=True)


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="rewards")


@app.callback()
def rewards() -> None:
    """Try rewards on completions."""


@dataclass(frozen=True)
class Columns:
    """The names of the columns that have the completions, answers and problems."""

    completion: str
    answer: str
    problem: str


@app.command("try")
def try_them(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="File of completions: JSONL, JSON, CSV or Parquet.", show_default=False),
    ],
    rewards: Annotated[
        list[str] | None,
        typer.Option(
            "--reward",
            metavar="NAME",
            help="math, format, ..., FILE.py:FUNCTION, or a reward with options: "
            "'{name: format, weight: 0.5, options: {pattern: \"[0-9]\"}}'. Repeatable.",
        ),
    ] = None,
    completion_column: Annotated[
        str, typer.Option(COMPLETION, metavar="NAME", help="Column of the completions.")
    ] = "completion",
    answer_column: Annotated[str, typer.Option(ANSWER, metavar="NAME", help="Column of the right answers.")] = "answer",
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", min=1, help="Longest completion allowed, in tokens (default: the longest in the file)."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Score a file of completions as a run would, and measure how long that takes.

    The columns tokens, truncated and problem are used if the file has them; without tokens, words are counted instead.
    """
    from aapo_desk.rewards import RewardError, check

    configs = _rewards(rewards or [])
    check(configs)
    read = _read(file, Columns(completion_column, answer_column, "problem"), max_tokens)
    try:
        document = _tried(configs, *read)
    except RewardError as error:
        complain(str(error))
        raise typer.Exit(1) from None
    if json:
        say_json({"file": file, **document})
    else:
        say("\n".join(map(printable, lines(document))))


def _rewards(given: Sequence[str]) -> list[RewardConfig]:
    """Return the reward configurations that the options describe. Raises ConfigError."""
    import yaml

    if not given:
        raise ConfigError(Problem("--reward", "is missing: give at least one, such as --reward math"))
    described: list[Any] = []
    for text in given:
        try:
            described.append(yaml.safe_load(text) if text.lstrip().startswith("{") else {"name": text})
        except yaml.YAMLError:
            raise ConfigError(
                Problem("--reward", "is not a YAML mapping such as {name: math, weight: 2}", text)
            ) from None
    frame = {"model": {"id": "none"}, "task": {"source": "arithmetic"}, "rewards": described}
    return resolve(frame, origin="--reward").rewards


def _read(file: str, columns: Columns, max_tokens: int | None) -> tuple[list[Completion], bool]:
    """Return the completions and whether the file has a tokens column. Raises ConfigError with the row and column."""
    from aapo_desk.rewards import Completion

    data = _table(user_path(file), (columns.completion, columns.answer, columns.problem, "tokens", "truncated"))
    for option, column in ((COMPLETION, columns.completion), (ANSWER, columns.answer)):
        if column not in data.columns:
            near = difflib.get_close_matches(column, data.columns, n=1)
            message = f"{file} has no column {column}; it has {', '.join(data.columns)}"
            raise ConfigError(Problem(option, message, nearest=near[0] if near else None))
    rows = [_row(row, number, columns) for number, row in enumerate(data.rows, 1)]
    longest = max_tokens or max(1, *(tokens for _, _, _, tokens, _ in rows))
    completions = [
        Completion(text, problem, answer, tokens, longest, truncated)
        for text, problem, answer, tokens, truncated in rows
    ]
    return completions, "tokens" in data.columns


def _table(path: Path, wanted: Sequence[str]) -> Table:
    from aapo_desk.tasks.files import read_file

    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(Problem("FILE", f"must end in {', '.join(SUFFIXES)}", str(path)))
    try:
        data = read_file(path, lambda _: wanted)
    except ConfigError as error:
        raise ConfigError(*(Problem("FILE", problem.message) for problem in error.problems)) from None
    if not data.rows:
        raise ConfigError(Problem("FILE", f"{path} has no rows"))
    return data


def _row(row: Mapping[str, Any], number: int, columns: Columns) -> tuple[str, str, str, int, bool]:
    from aapo_desk.tasks.texts import answer_text

    text = row.get(columns.completion)
    if not isinstance(text, str):
        raise _wrong(number, COMPLETION, columns.completion, "must be text", text)
    try:
        answer, problem = answer_text(row.get(columns.answer)), answer_text(row.get(columns.problem))
    except TypeError as error:
        raise ConfigError(Problem(ANSWER, f"row {number} {error}; name a column of text or numbers")) from None
    tokens = row.get("tokens")
    if tokens is None or tokens == "":
        tokens = len(text.split())
    elif not str(tokens).isdecimal():
        raise _wrong(number, "FILE", "tokens", "must be a whole number", tokens)
    truncated = str(row.get("truncated") or "false").strip().lower()
    if truncated not in ("true", "false", "1", "0"):
        raise _wrong(number, "FILE", "truncated", "must be true or false", truncated)
    return text, problem, answer, int(tokens), truncated in ("true", "1")


def _wrong(number: int, option: str, column: str, message: str, given: object) -> ConfigError:
    return ConfigError(Problem(option, f"row {number}, column {column}: {message}, not {given!r:.60}"))


def _tried(configs: list[RewardConfig], completions: list[Completion], counted: bool) -> dict[str, Any]:
    """Score the completions and return scores and time as JSON. Raises RewardError."""
    from aapo_desk.rewards import RewardPool

    began = time.perf_counter()
    with RewardPool(configs, workers=WORKERS) as pool:
        pool.score(completions[:WORKERS])  # warm-up: the workers start and import what they need
        ready = time.perf_counter()
        scores = pool.score(completions)
        seconds = time.perf_counter() - ready
        names = pool.names
    return {
        "completions": len(completions),
        "tokens_are": "tokens" if counted else "words",
        "max_tokens": completions[0].max_tokens,
        "rewards": [
            {
                "name": name,
                **config.model_dump(mode="json", exclude={"name"}),
                **_spread([s.parts.get(name) for s in scores]),
            }
            for name, config in zip(names, configs, strict=True)
        ],
        "total": _spread([score.total for score in scores]),
        "workers": WORKERS,
        "seconds_start": ready - began,
        "seconds": seconds,
        "scores": [_score_json(row, score) for row, score in enumerate(scores, 1)],
    }


def _score_json(row: int, score: Score) -> dict[str, Any]:
    return {"row": row, "total": score.total, "parts": score.parts, "error": score.error}


def _spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    scored = [value for value in values if value is not None]
    return {
        "mean": sum(scored) / len(scored) if scored else None,
        "least": min(scored, default=None),
        "most": max(scored, default=None),
        "unscored": len(values) - len(scored),
    }


def lines(document: Mapping[str, Any]) -> list[str]:
    """Return the document as lines of text."""
    columns = {"weight": "weight", "mean": "mean", "least": "min", "most": "max", "unscored": "unscored"}
    parts = [*document["rewards"], {"name": "weighted sum", "weight": None, **document["total"]}]
    count, seconds = document["completions"], document["seconds"]
    errors = [f"row {score['row']}: {score['error']}" for score in document["scores"] if score["error"]]
    more = [f"and {len(errors) - MOST_ERRORS} more rows that could not be scored"] if len(errors) > MOST_ERRORS else []
    return [
        f"{count} completions of up to {document['max_tokens']} {document['tokens_are']}",
        *table(
            ["reward", *columns.values()],
            [[part["name"], *(_cell(part[key]) for key in columns)] for part in parts],
            right=list(columns.values()),
        ),
        *errors[:MOST_ERRORS],
        *more,
        f"scored in {seconds:.2f} s, {1000 * seconds / count:.1f} ms each, by {document['workers']} workers "
        f"(started in {document['seconds_start']:.1f} s)",
    ]


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"
