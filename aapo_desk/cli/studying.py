"""The implementation of ``study``: start, resume, list and show studies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
import yaml

from aapo_desk import launch, presets
from aapo_desk.cli.comparing import check_matplotlib
from aapo_desk.cli.findings import document, lines
from aapo_desk.cli.follow import interrupts
from aapo_desk.cli.output import complain, printable, say, say_json, table
from aapo_desk.cli.train import look
from aapo_desk.config import ConfigError, Problem, parse_set
from aapo_desk.config.resolving import set_value
from aapo_desk.studies import queue, running
from aapo_desk.studies.arms import ALGORITHM, Arm, BudgetKind, make_arms, make_budget, without_schedule
from aapo_desk.studies.files import PICTURES, save_ending
from aapo_desk.studies.findings import Findings, StudyReader
from aapo_desk.studies.study import Study, check_study_name, create_study, find_study, list_studies


def start(
    preset: str,
    algorithms: str | None,
    vary: str | None,
    count: int,
    kind: BudgetKind,
    amount: float | None,
    sets: Sequence[str],
    name: str | None,
    json: bool,
    plot: Path | None,
    detach: bool,
) -> None:
    """Plan a study, add its runs to the queue and train them."""
    varied, values = _what_varies(algorithms, vary)
    _check_plot(plot)
    if name is not None:
        check_study_name(name)
    arms = make_arms(preset, parse_set(sets), varied, values)
    make_budget(kind, amount, arms)  # raises errors before anything is downloaded
    arms, problems = _looked_at(arms, quiet=json)
    budget = make_budget(kind, amount, arms, problems)
    first = arms[0].config
    study = create_study(
        name, presets.find(preset).name, varied, arms, range(first.run.seed, first.run.seed + count), budget
    )
    if not json:
        say(printable(f"study {study.name}: {study.words}"))
        if without_schedule(arms, budget) and any(arm.config.optimizer.schedule != "constant" for arm in arms):
            say("the learning rate is constant, because the number of steps of a run is not known in advance")
    running.put_in(study)
    _work(study, json, plot, detach)


def _what_varies(algorithms: str | None, vary: str | None) -> tuple[str, list[Any]]:
    """Return the setting that the arms differ in, and its values. Raises ConfigError."""
    if (algorithms is None) == (vary is None):
        given = None if algorithms is None else algorithms
        message = "give either --algorithms A,B,... or --vary PATH=V,W,..., to say what the study compares"
        raise ConfigError(Problem("--algorithms", message, given))
    if algorithms is not None:
        return ALGORITHM, [part.strip() for part in algorithms.split(",") if part.strip()]
    path, equals, text = (vary or "").partition("=")
    path, text = path.strip(), text.strip()
    if not equals or not path:
        raise ConfigError(Problem("--vary", "must be PATH=V,W,..., such as algorithm.pairing=index,mean", vary))
    if text.startswith("["):
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(Problem("--vary", "is not a YAML list", vary)) from None
        return path, list(values) if isinstance(values, list) else [values]
    return path, [set_value(path, part.strip()) for part in text.split(",") if part.strip()]


def _looked_at(arms: Sequence[Arm], quiet: bool) -> tuple[list[Arm], int]:
    """Return the arms pinned to the commits of their models and data, and the number of problems to train on.

    The preflight runs once for each distinct pair of model and task.
    """
    found: dict[str, launch.Preflight] = {}
    pinned = []
    for arm in arms:
        key = arm.config.model.model_dump_json() + arm.config.task.model_dump_json()
        if key not in found:
            found[key] = look(arm.config, quiet)
        pinned.append(Arm(arm.label, found[key].pin(arm.config)))
    return pinned, next(iter(found.values())).train


def go_on(reference: str, json: bool, plot: Path | None, detach: bool) -> None:
    """Train the remaining runs of a study."""
    _check_plot(plot)
    _work(find_study(reference), json, plot, detach)


def _work(study: Study, json: bool, plot: Path | None, detach: bool) -> None:
    if detach:
        running.start_in_background(study)
        if json:
            say_json(document(StudyReader(study).read()))
            return
        for line in (
            f"study {printable(study.name)} runs in the background",
            f"show it: aapo-desk study show {study.id}",
            "stop it: aapo-desk queue stop",
            f"log:     {study.log}",
        ):
            say(line)
        return

    if queue.is_worked_off():
        complain(
            f"the queue is already running and trains these runs too; show them with: aapo-desk study show {study.id}"
        )
        if json:
            say_json(document(StudyReader(study).read()))
        return

    def tell(line: str) -> None:
        if not json:
            say(printable(line))

    with interrupts() as stop:
        done = running.work(study, tell, stop)
    # Read the study again, because its budget may have been set meanwhile.
    _report(StudyReader(find_study(study.id)).read(), json, plot)
    if stop.count or not done:
        raise typer.Exit(1)


def _report(findings: Findings, json: bool, plot: Path | None) -> None:
    """Write the chart if one is wanted, then print the findings; an unfinished study includes how to resume it."""
    written = _draw(findings, plot) if plot else []
    if json:
        say_json(document(findings))
        return
    for line in [*lines(findings), *written]:
        say(line)


def _draw(findings: Findings, path: Path) -> list[str]:
    from aapo_desk.studies.study_picture import draw

    try:
        draw(path, findings)
    except OSError as error:
        complain(f"cannot write {path}: {error.strerror or error}")
        raise typer.Exit(1) from None
    return [f"written: {printable(str(path))}"]


def _check_plot(plot: Path | None) -> None:
    if plot is not None:
        save_ending(plot, PICTURES, "--plot")
        check_matplotlib()


def show(reference: str, json: bool, plot: Path | None) -> None:
    """Print what a study has found so far."""
    _check_plot(plot)
    _report(StudyReader(find_study(reference)).read(), json, plot)


def list_them(json: bool) -> None:
    """Print all studies, the newest first."""
    found = [StudyReader(study).read() for study in list_studies()]
    if json:
        say_json(
            [
                {"id": one.study.id, "name": one.study.name, "created": one.study.created, "runs": len(one.runs)}
                | {"finished": one.done, "failed": len(one.failed), "at_work": one.at_work, "words": one.study.words}
                for one in found
            ]
        )
        return
    if not found:
        say("no studies yet; start one with: aapo-desk study PRESET --algorithms aapo,grpo")
        return
    rows = [
        [
            one.study.name,
            state(one),
            datetime.fromtimestamp(one.study.created).strftime("%Y-%m-%d %H:%M"),
            one.study.words,
        ]
        for one in found
    ]
    shown = [[printable(cell) for cell in row] for row in rows]
    for line in table(["study", "runs", "created", "what"], shown, shorten="what"):
        say(line)


def state(findings: Findings) -> str:
    """Return how many runs finished or failed and whether the study runs, such as ``5 of 9, 1 failed, running``."""
    said = f"{findings.done} of {len(findings.runs)}"
    if findings.failed:
        said += f", {len(findings.failed)} failed"
    return f"{said}, running" if findings.at_work else said
