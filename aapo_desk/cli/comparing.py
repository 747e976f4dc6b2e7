"""The implementation of ``compare``: reads the runs, compares them, and prints or writes the result."""

from __future__ import annotations

import json as json_text
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from aapo_desk.cli.compare import By
from aapo_desk.cli.evaluate import what
from aapo_desk.cli.lines import interval
from aapo_desk.cli.output import complain, printable, say, say_json, table
from aapo_desk.evaluation import Estimate
from aapo_desk.store import find_run
from aapo_desk.store.records import finite
from aapo_desk.studies import (
    DEFAULT_METRIC,
    SMOOTHING,
    Comparer,
    Comparison,
    Difference,
    Entry,
    Kept,
    Outcome,
    Side,
    between,
    check_metric,
    check_runs,
    difference,
    figure,
    kept_evaluations,
    save,
    save_ending,
)
from aapo_desk.studies.files import PICTURES, TABLES

SIDES: tuple[Side, ...] = ("greedy", "sampled")
KeptByRun = Mapping[str, Mapping[str, Kept]]
"""Saved ``aapo-desk eval`` results by run letter, then by a key for what was asked."""


def compare(
    references: Sequence[str], metric: str | None, by: By, plot: Path | None, csv: Path | None, json: bool
) -> None:
    """Print a comparison of runs and write the requested files. ``metric``: None means ``DEFAULT_METRIC``."""
    metric = metric or DEFAULT_METRIC
    runs = [find_run(reference) for reference in references]
    check_runs(runs)
    if csv is not None:
        save_ending(csv, TABLES, "--csv")
    if plot is not None:
        save_ending(plot, PICTURES, "--plot")
        check_matplotlib()
    compared = Comparer(runs).read(metric, SMOOTHING)
    if broken := next((entry for entry in compared.entries if entry.problem), None):
        complain(f"cannot read run {broken.name}: {broken.problem}")
        raise typer.Exit(1)
    check_metric(metric, compared.metrics)
    written = _write(compared, by, [path for path in (plot, csv) if path])
    kept = {entry.letter: kept_evaluations(entry.run) for entry in compared.entries}
    if json:
        say_json(document(compared, by, kept))
        return
    for line in [*lines(compared, by, kept), *written]:
        say(line)


def check_matplotlib() -> None:
    """If matplotlib is missing, print how to install it and exit with status 2."""
    from aapo_desk.studies import pictures

    try:
        pictures.check_matplotlib()
    except pictures.PicturesMissing as error:
        complain(str(error))
        raise typer.Exit(2) from None


def _write(compared: Comparison, by: By, paths: list[Path]) -> list[str]:
    """Write the comparison to each path; return a line for each. Exit with status 1 if one cannot be written."""
    for path in paths:
        try:
            save(path, compared, by.value)
        except OSError as error:
            complain(f"cannot write {path}: {error.strerror or error}")
            raise typer.Exit(1) from None
    return [f"written: {printable(str(path))}" for path in paths]


def lines(compared: Comparison, by: By, kept: KeptByRun) -> list[str]:
    """Return the comparison as text: the runs, their evaluations, and the settings that differ."""
    return [*_runs(compared, by), "", *_evaluations(compared), *_tasks(compared, kept), "", *_settings(compared)]


def _runs(compared: Comparison, by: By) -> list[str]:
    baseline = compared.baseline
    header = [
        "",
        "run",
        "state",
        "steps",
        "seconds",
        "tokens",
        "completions",
        compared.metric,
        f"against {baseline.letter}",
    ]
    rows = []
    for entry in compared.entries:
        standing, totals = compared.standing(entry, by.value), entry.totals
        against = "baseline" if entry is baseline else figure(standing.difference, "+", missing="-")
        if standing.at is not None and standing.at != standing.x:
            against += f" at {_place(standing.at, by)}"
        rows.append(
            [
                entry.letter,
                printable(entry.name),
                entry.state,
                str(totals.steps or "none yet"),
                _number(totals.seconds, ".0f"),
                _number(totals.tokens, "d"),
                _number(totals.completions, "d"),
                figure(standing.value, missing="-"),
                against,
            ]
        )
    right = ("steps", "seconds", "tokens", "completions", compared.metric)
    said = f"{compared.metric} by {by.value}, exponential moving average ({compared.smoothing:g})"
    return [printable(said), *table([printable(title) for title in header], rows, right=right)]


def _place(x: float, by: By) -> str:
    return {By.STEP: f"step {x:.0f}", By.TIME: f"{x:.0f} s", By.TOKENS: f"{x:.0f} tokens"}[by]


def _evaluations(compared: Comparison) -> list[str]:
    baseline = compared.baseline
    rows = []
    for entry in compared.entries:
        final = entry.final
        if final is None:
            rows.append([entry.letter, "not evaluated", "", "", ""])
            continue
        greedy = final.greedy
        rows.append(
            [
                entry.letter,
                _interval(greedy.base),
                f"{_interval(greedy.tuned)} after step {final.step}" if final.step else "not evaluated yet",
                _interval(greedy.gain, "+"),
                "baseline" if entry is baseline else _against(_difference(compared, entry, "greedy")),
            ]
        )
    header = ["", "base", "tuned", "gain", f"tuned, against {baseline.letter}"]
    notes = [f"{one.letter}, {note}" for one in compared.entries if one.final for note in one.final.greedy.notes]
    title = "share of held-out problems answered right (greedy decoding), with 95 % intervals"
    return [title, *table(header, rows), *notes]


def _tasks(compared: Comparison, kept: KeptByRun) -> list[str]:
    """Return the saved ``aapo-desk eval`` results of the runs, one table for each evaluation setup."""
    baseline = compared.baseline
    said = []
    for key, first in {key: found for one in reversed(list(kept.values())) for key, found in one.items()}.items():
        base = kept[baseline.letter].get(key)
        rows, notes = [], []
        for entry in compared.entries:
            found = kept[entry.letter].get(key)
            if found is None:
                rows.append([entry.letter, "not evaluated", "", "", ""])
                continue
            outcome = found.outcome
            notes += [f"{entry.letter}, {note}" for note in outcome.notes]
            rows.append(
                [
                    entry.letter,
                    _interval(outcome.base),
                    f"{_interval(outcome.tuned)} after step {found.head['step']}",
                    _interval(outcome.gain, "+"),
                    "baseline" if entry is baseline else _against(_between(base, found)),
                ]
            )
        header = ["", "base", "tuned", "gain", f"tuned, against {baseline.letter}"]
        said += ["", printable(what(first.head)), *table(header, rows), *notes]
    return said


def _between(base: Kept | None, found: Kept) -> Difference | None:
    return between(base.outcome, found.outcome, comparable=True) if base else None


def _against(found: Difference | None) -> str:
    if found is None:
        return "-"
    how = f"paired over {found.problems} problems" if found.paired else "not paired: different problems or scoring"
    return f"{_interval(found.estimate, '+')} {how}"


def _difference(compared: Comparison, entry: Entry, side: Side) -> Difference | None:
    base = compared.baseline
    if entry is base or entry.final is None or base.final is None:
        return None
    return difference(base.final, entry.final, side)


def _settings(compared: Comparison) -> list[str]:
    differing = compared.differing()
    if not differing:
        return ["the configurations are the same"]
    rows = [[path, *(_setting(value) for value in values)] for path, values in differing.items()]
    header = ["", *(entry.letter for entry in compared.entries)]
    return ["settings that differ", *table(header, [[printable(cell) for cell in row] for row in rows])]


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else "-" if value is None else json_text.dumps(value, ensure_ascii=False)


def document(compared: Comparison, by: By, kept: KeptByRun) -> dict[str, Any]:
    """Return the comparison as JSON. ``settings`` has one value per run, in the order of the runs; ``points`` has the
    curves, thinned out."""
    return {
        "metric": compared.metric,
        "by": by.value,
        "smoothing": compared.smoothing,
        "baseline": compared.baseline.letter,
        "metrics": list(compared.metrics),
        "runs": [_run_document(compared, entry, by, kept) for entry in compared.entries],
        "settings": [{"path": path, "values": values} for path, values in compared.differing().items()],
    }


def _run_document(compared: Comparison, entry: Entry, by: By, kept: KeptByRun) -> dict[str, Any]:
    standing, totals, points, final = compared.standing(entry, by.value), entry.totals, entry.points, entry.final
    sides = (
        {side: _side_document(final.side(side), _difference(compared, entry, side)) for side in SIDES} if final else {}
    )
    base = kept[compared.baseline.letter]
    return {
        "letter": entry.letter,
        "id": entry.run.id,
        "name": entry.name,
        "state": entry.state,
        "pinned": entry.pinned,
        "steps": totals.steps,
        "seconds": totals.seconds,
        "tokens": totals.tokens,
        "completions": totals.completions,
        "value": standing.value,
        "difference": {"value": standing.difference, "at": standing.at} if standing.difference is not None else None,
        "evaluation": {"step": final.step, "problems": final.problems} | sides if final else None,
        "tasks": [
            {name: found.head[name] for name in ("task", "step", "problems", "asked")}
            | {"folder": str(found.folder)}
            | _side_document(found.outcome, None if entry is compared.baseline else _between(base.get(key), found))
            for key, found in kept[entry.letter].items()
        ],
        "points": {
            "step": [int(step) for step in points.steps],
            "seconds": finite(list(points.seconds)),
            "tokens": finite(list(points.tokens)),
            "value": finite(list(points.values)),
            "smooth": finite(list(points.smooth)),
        },
    }


def _side_document(outcome: Outcome, against: Difference | None) -> dict[str, Any]:
    estimates = {"base": outcome.base, "tuned": outcome.tuned, "gain": outcome.gain}
    said: dict[str, Any] = {name: item.as_json() if item else None for name, item in estimates.items()}
    said["notes"] = list(outcome.notes)
    said["against_baseline"] = None
    if against:
        said["against_baseline"] = against.estimate.as_json() | {"paired": against.paired, "problems": against.problems}
    return said


def _interval(estimate: Estimate | None, sign: str = "") -> str:
    return interval(estimate.as_json(), "mean", sign) if estimate else "-"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
