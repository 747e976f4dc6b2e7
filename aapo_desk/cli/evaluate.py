"""eval: how many problems a model answers right, and whether the tuned one answers more than its base."""

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
            metavar="RUN|MODEL", help="A run (its adapter and its base), or a folder or hub id.", show_default=False
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="TASK",
            help="gsm8k, svamp, math500, aime24, amc23, minerva, olympiadbench; file:PATH or hub:OWNER/DATASET; "
            "own: the run's held-out problems, the default for a run.",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="PATH", help="A named task's local copy: a file, or a folder.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Of a data set: by default test.")
    ] = None,
    problems: Annotated[
        int | None, typer.Option("--problems", min=1, help="So many of them, the same ones each time; by default all.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Answers a problem, with --temperature.")] = 1,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Sample the answers; by default they are greedy.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Longest answer; by default the task's.")
    ] = None,
    step: Annotated[
        str | None, typer.Option("--step", metavar="N|best|last", help="The run's checkpoint; by default last.")
    ] = None,
    sets: Sets = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document instead of lines.")] = False,
    offline: Offline = False,
) -> None:
    """Ask a model problems and count the right answers; of a run its base and its tuned model, in the same batches.

    Every answer is kept. What was interrupted goes on with the same command, and ends with the same numbers.
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
    """The request where nothing of it is to be refused, to be used from anywhere. Raises ConfigError."""
    from aapo_desk import launch

    launch.check(asked.config)
    if asked.run and launch.is_alive(asked.run):
        _note(f"run {asked.run.name} is training: the two share the device's memory")
    return replace(asked, config=launch.with_absolute_paths(asked.config))


def _worked(asked: Request) -> tuple[Path, Mapping[str, Any]]:
    """The results. What fails, or Ctrl-C, ends the command with a line."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Notes of the libraries to their own developers are nothing for the reader.
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
        complain("cancelled before anything was asked")
        raise typer.Exit(130) from None


def _note(line: str) -> None:
    """On standard error: standard output is for the results alone."""
    typer.echo(printable(line), err=True)


class Progress:
    """A line now and then."""

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
    """An evaluation's head for people."""
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
    """What was asked, in one line."""
    asked, sampling = head["asked"], head["asked"]["sampling"]
    how = "greedy"
    if sampling:
        how = f"mean of {asked['samples']} samples" if asked["samples"] > 1 else "sampled"
        how += f" at temperature {sampling['temperature']:g}"
        how += f", top-p {sampling['top_p']:g}" if sampling["top_p"] < 1 else ""
        how += f", top-k {sampling['top_k']}" if sampling["top_k"] else ""
    count, total = head["problems"], head["total"]
    some = f"{count} problems" if count == total else f"{count} of {total} problems"
    dropped = f", {head['dropped']} left out: their prompts are too long" if head["dropped"] else ""
    return f"{head['task']}: {some}, {how}, up to {head['max_new_tokens']} new tokens, 95 % intervals{dropped}"


def _who(side: str, head: Mapping[str, Any]) -> str:
    return f"tuned, step {head['step']}" if side == "tuned" else "base"
