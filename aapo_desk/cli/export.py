"""The ``export`` command: write a run's adapter for peft, transformers, llama.cpp or Ollama."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from aapo_desk.cli.lines import interval
from aapo_desk.cli.output import complain, printable, say, say_json
from aapo_desk.cli.start import Offline
from aapo_desk.config import ConfigError, Problem, user_path
from aapo_desk.store import find_run
from aapo_desk.store.unscorable import unscorable_notes

if TYPE_CHECKING:
    from aapo_desk.config import RunConfig
    from aapo_desk.export import Request
    from aapo_desk.export.questions import Judge
    from aapo_desk.rewards import Completion


class As(Enum):
    ADAPTER = "adapter"
    MERGED = "merged"
    GGUF = "gguf"


def add_to(app: typer.Typer) -> None:
    app.command("export")(export)


def export(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Id, unique start of an id, name, or: last.", show_default=False)
    ] = None,
    form: Annotated[
        As | None,
        typer.Option("--format", help="adapter: for peft; merged: 16-bit weights; gguf: for llama.cpp, Ollama."),
    ] = None,
    quant: Annotated[
        str | None,
        typer.Option(
            "--quant", metavar="Q", help="GGUF type: f16, q8_0, q6_k, q5_k_m, q4_k_m or q3_k_m (default: f16)."
        ),
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="DIR", help="Folder to create.")] = None,
    step: Annotated[str, typer.Option("--step", metavar="N|best|last", help="Checkpoint to export.")] = "best",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing export.")] = False,
    no_eval: Annotated[bool, typer.Option("--no-eval", help="Do not measure the export's held-out accuracy.")] = False,
    offline: Offline = False,
    check: Annotated[
        str | None,
        typer.Option(
            "--check", metavar="DIR", help="Only check that an existing export is unchanged since it was verified."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Export a run's adapter: as it is, merged into its base model, or as a GGUF file.

    The export is loaded again, compared with the unquantized base plus adapter, and asked the run's held-out problems.
    If it does not match, it is kept as DIR.broken and the exit status is 1.
    """
    if check is not None:
        if run is not None or form is not None or to is not None:
            raise ConfigError(Problem("--check", "cannot be combined with RUN, --format or --to", check))
        raise typer.Exit(_check(user_path(check), json))
    request = _request(run, form, quant, to, step, force, offline)
    record = _made(request, evaluated=not no_eval)
    if json:
        say_json(record)
        return
    for line in lines(record):
        say(printable(line))


def _request(
    run: str | None, form: As | None, quant: str | None, to: str | None, step: str, force: bool, offline: bool
) -> Request:
    """Return the export request. Raises ConfigError for everything that can be checked without loading a model."""
    from aapo_desk.export import Request, check_request, choose

    missing = [
        Problem(name, message)
        for name, message, given in (
            ("RUN", "is missing; to list the runs: aapo-desk runs", run),
            ("--format", "is missing: give adapter, merged or gguf", form),
            ("--to", "is missing: give the folder to create", to),
        )
        if given is None
    ]
    if missing or run is None or form is None or to is None:
        raise ConfigError(*missing)
    target = user_path(to).absolute()
    check_request(form.value, quant, target, force)
    return Request(choose(find_run(run), step), form.value, target, quant or "f16", force, offline)


def _made(request: Request, evaluated: bool) -> dict[str, Any]:
    """Export, and return the export's record. A failure or Ctrl-C prints a message and exits."""
    from aapo_desk import rewards
    from aapo_desk.preview import silence_libraries

    source = request.source
    if evaluated:
        rewards.check(source.config.rewards)
    silence_libraries()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns about optional kernels that are missing
    from aapo_desk.checkpoint import CheckpointError
    from aapo_desk.export import ExportError
    from aapo_desk.export.exporting import export as make
    from aapo_desk.models.sources import ModelError
    from aapo_desk.rewards import RewardError

    _progress(f"step {source.step} of run {source.run.name}: {source.chosen}")
    try:
        if not evaluated:
            return make(request, None, _progress)
        with _judged(source.config) as judge:
            return make(_on_one_rule(request), judge, _progress)
    except (ExportError, ModelError, CheckpointError, RewardError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        complain("cancelled; nothing was exported")
        raise typer.Exit(130) from None


def _fail(message: str) -> NoReturn:
    complain(message)
    raise typer.Exit(1) from None


def _progress(line: str) -> None:
    complain(line, prefix="")


def _on_one_rule(request: Request) -> Request:
    """Return the request with the run's evaluations recounted by the rule that the export's answers are counted by.

    This is done here because the export package does not import the evaluation package.
    """
    from aapo_desk.evaluation.accuracy import recounted

    return replace(request, source=replace(request.source, evaluations=recounted(request.source.evaluations)))


@contextmanager
def _judged(config: RunConfig) -> Iterator[Judge]:
    """Yield a function that scores answers with the reward that the run's own evaluations use.

    It is built here because the export and evaluation packages do not import each other.
    """
    from aapo_desk.evaluation.accuracy import measure
    from aapo_desk.evaluation.asking import READABLE
    from aapo_desk.evaluation.held_out import judged_by
    from aapo_desk.rewards import RewardPool

    with RewardPool(judged_by(config.rewards)) as pool:

        def judge(completions: Sequence[Completion]) -> dict[str, Any]:
            return measure(
                [
                    next(value for name, value in score.parts.items() if name != READABLE)
                    for score in pool.score(completions)
                ]
            )

        yield judge


def lines(record: dict[str, Any]) -> list[str]:
    """Return the export's record as lines of text."""
    from aapo_desk.export.card import agreement, proof_lines

    size = sum(file["bytes"] for file in record["files"].values()) / 2**20
    said = [f"{record['path']}: {record['form']} {record['quant'] or ''}".rstrip() + f", {size:.1f} MiB"]
    said += proof_lines(record)
    held_out = record["held_out"]
    if held_out is not None:
        said.append(
            f"held-out accuracy, greedy, {held_out['problems']} problems: {interval(held_out['greedy'], 'accuracy')}"
        )
        if run := held_out["run"]:
            said.append(f"  the run's own evaluation of this step: {interval(run, 'accuracy')}; {agreement(run)}")
        sides = {"this export": held_out["greedy"], "the run's own evaluation": run or {}}
        said += [f"  {note}" for note in unscorable_notes(sides, held_out["problems"])]
    for tool, typed in record["use"].items():
        said += [f"{tool}:", *(f"  {line}" for line in typed)]
    return said


def _check(folder: Path, json: bool) -> int:
    """Report whether an export is unchanged since it was verified; return the exit status."""
    from aapo_desk.export import check_folder

    try:
        record, problems = check_folder(folder)
    except ValueError as error:
        raise ConfigError(Problem("--check", str(error), str(folder))) from None
    if json:
        say_json({"path": str(folder), "whole": not problems, "problems": problems})
    elif not problems:
        form = f"{record['form']} {record['quant'] or ''}".rstrip()
        say(
            printable(
                f"{folder}: {form} of step {record['step']} of run {record['name']}, unchanged since it was verified"
            )
        )
    for problem in problems:
        complain(f"{folder}: {problem}")
    return 1 if problems else 0
