"""The ``eval`` command: how many problems a model answers right, and whether tuning made it better."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aapo_desk.cli.lines import interval
from aapo_desk.cli.output import complain, printable, say, say_json, table
from aapo_desk.cli.start import Offline
from aapo_desk.cli.train import Sets
from aapo_desk.config import parse_set
from aapo_desk.store.unscorable import unscorable_notes

if TYPE_CHECKING:
    from aapo_desk.evaluation.request import Request

SECONDS_BETWEEN_LINES = 10.0


def add_to(app: typer.Typer) -> None:
    app.command("eval")(evaluate)


def evaluate(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            help="A run (its adapter and its base model), a model folder or a hub id.",
            show_default=False,
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="TASK",
            help="gsm8k, svamp, math500, aime24, amc23, minerva, olympiadbench, file:PATH, hub:OWNER/DATASET, or own: "
            "the run's held-out problems (default for a run: own).",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="PATH", help="Local copy of a named task: a file or a folder.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Split of a data set to use (default: test).")
    ] = None,
    problems: Annotated[
        int | None, typer.Option("--problems", min=1, help="Number of problems, always the same ones (default: all).")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Answers per problem; needs --temperature.")] = 1,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Sampling temperature (default: greedy decoding).")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Longest answer in tokens (default: the task's).")
    ] = None,
    step: Annotated[
        str | None, typer.Option("--step", metavar="N|best|last", help="Checkpoint of the run (default: last).")
    ] = None,
    sets: Sets = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
    offline: Offline = False,
) -> None:
    """Ask a model problems and count the right answers; for a run, ask its base and tuned models in the same batches.

    Every answer is saved. After an interruption, run the same command to resume; the result is the same.
    """
    from aapo_desk.evaluation.request import Wanted, request

    changes = parse_set(sets or [])
    wanted = Wanted(reference, task, data, split, problems, samples, temperature, max_new_tokens, step, changes)
    folder, head = _worked(_checked(request(wanted)))
    if json:
        say_json({"folder": str(folder), **head})
        return
    for line in [*lines(head), f"kept: {folder}"]:
        say(printable(line))


def _checked(asked: Request) -> Request:
    """Return the request with absolute paths, after checking its configuration. Raises ConfigError."""
    from aapo_desk import launch

    launch.check(asked.config)
    if asked.run and launch.is_alive(asked.run):
        _note(f"run {asked.run.name} is training: it and this evaluation share the device's memory")
    return replace(asked, config=launch.with_absolute_paths(asked.config))


def _worked(asked: Request) -> tuple[Path, Mapping[str, Any]]:
    """Run the evaluation and return its folder and results. A failure or Ctrl-C prints a message and exits."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # These warnings are meant for the developers of the libraries, not for users.
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    _note("loading torch and transformers")
    try:
        from aapo_desk.checkpoint import CheckpointError
        from aapo_desk.evaluation.work import Interrupted, work
        from aapo_desk.models.sources import ModelError
        from aapo_desk.rewards import RewardError
    except KeyboardInterrupt:
        complain("cancelled")
        raise typer.Exit(130) from None
    try:
        return work(asked, _note, Progress())
    except (ModelError, CheckpointError, RewardError) as error:
        complain(str(error))
        raise typer.Exit(1) from None
    except Interrupted as kept:
        complain(str(kept))
        raise typer.Exit(130) from None
    except KeyboardInterrupt:
        complain("cancelled before any problem was asked")
        raise typer.Exit(130) from None


def _note(line: str) -> None:
    """Print a line on standard error, because standard output has only the results."""
    typer.echo(printable(line), err=True)


class Progress:
    """A progress callback that prints at most one line every ``SECONDS_BETWEEN_LINES``."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, share: float, left: float | None) -> None:
        now = time.monotonic()
        if now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            _note(f"{share:4.0%} done" + (f", {_duration(left)} left" if left is not None else ""))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def lines(head: Mapping[str, Any]) -> list[str]:
    """Return an evaluation's summary as lines of text."""
    summary = head["summary"]
    rows = [
        [
            _who(side, head),
            interval(found, "accuracy", digits=3),
            f"{found['tokens']:.0f}",
            f"{found['truncated']:.1%}",
            str(found["unscorable"]),
        ]
        for side in ("base", "tuned")
        if (found := summary.get(side))
    ]
    said = [
        what(head),
        *table(["", "right", "tokens", "cut off", "unscorable"], rows, right=("tokens", "cut off", "unscorable")),
    ]
    if difference := summary.get("difference"):
        said.append(
            f"difference {interval(difference, 'mean', '+', digits=3)}, paired over {difference['problems']} problems: "
            f"{difference['better']} better, {difference['worse']} worse"
        )
    sides = {_who(side, head): summary[side] for side in ("base", "tuned") if summary.get(side)}
    return said + unscorable_notes(sides, summary["base"]["answers"])


def what(head: Mapping[str, Any]) -> str:
    """Return one line that describes the evaluation setup: task, problems, decoding, limits."""
    asked, sampling = head["asked"], head["asked"]["sampling"]
    how = "greedy"
    if sampling:
        how = f"mean of {asked['samples']} samples" if asked["samples"] > 1 else "sampled"
        how += f" at temperature {sampling['temperature']:g}"
        how += f", top-p {sampling['top_p']:g}" if sampling["top_p"] < 1 else ""
        how += f", top-k {sampling['top_k']}" if sampling["top_k"] else ""
    count, total = head["problems"], head["total"]
    some = f"{count} problems" if count == total else f"{count} of {total} problems"
    dropped = f", {head['dropped']} left out because their prompts are too long" if head["dropped"] else ""
    return f"{head['task']}: {some}, {how}, up to {head['max_new_tokens']} new tokens, 95 % intervals{dropped}"


def _who(side: str, head: Mapping[str, Any]) -> str:
    return f"tuned, step {head['step']}" if side == "tuned" else "base"
