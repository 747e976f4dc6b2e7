"""A study as text: its progress, the final accuracy of its arms, the resources they used, and its runs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from textual.content import Content

from aapo_desk.studies import figure
from aapo_desk.studies.findings import ArmFindings, Findings, SeedRun
from aapo_desk.tui.labels import duration
from aapo_desk.tui.text import one_line
from aapo_desk.tui.widgets.overlay import sample
from aapo_desk.tui.widgets.standings import STYLES, amount, interval

FAINT = "$foreground 70%"
LONGEST_LABEL = 14
ROOMY = 90

Row = Sequence[str]


def progress_text(findings: Findings) -> Content:
    """Return how many runs have finished or failed, and which one is training."""
    counts = f"{findings.done} of {len(findings.runs)} runs finished"
    if findings.failed:
        counts += f", {len(findings.failed)} failed"
    parts = [(f"{counts}  ", "bold")]
    parts += [(f"{one_line(run.name, 40)}: {_state(run)}  ", "") for run in findings.runs if run.live]
    if findings.left and not findings.at_work:
        parts.append(("not running", FAINT))
    return Content.assemble(*parts)


def outcomes_text(findings: Findings, width: int) -> Content:
    """Return a line for each arm: held-out accuracy before and after training, difference from the first arm."""
    roomy = width >= ROOMY
    first = findings.arms[0]
    rows: list[Row] = [
        ["held out: base" if roomy else "base", "tuned", *(["gain"] if roomy else []), f"against {first.letter}"]
    ]
    for arm in findings.arms:
        outcome = arm.sides["greedy"]
        contrast = outcome.against
        against = (
            "baseline" if arm is first else f"{interval(contrast.estimate, '+')} {contrast.words}" if contrast else "–"
        )
        base = interval(outcome.base) if roomy else interval(outcome.base).partition(" ")[0]
        rows.append([base, interval(outcome.tuned), *([interval(outcome.gain, "+")] if roomy else []), against])
    seeds = max((arm.sides["greedy"].against.seeds for arm in findings.arms if arm.sides["greedy"].against), default=0)
    note = "[95 % interval] over seeds and problems, paired by problem" if seeds != 1 else (
        "[95 % interval] over problems; other seeds may differ"
    )  # fmt: skip
    notes = [f"{arm.letter}, {line}" for arm in findings.arms for line in arm.sides["greedy"].notes]
    return _arms(findings, rows, "\n".join([note, *notes]), left=True)


def spent_text(findings: Findings, width: int) -> Content:
    """Return a line for each arm: the resources its runs used and the share of rows they learned from, as means."""
    rows: list[Row] = [["runs", "steps", "completions", "tokens", "time", "teach: group", "with margin"]]
    for arm in findings.arms:
        seconds = arm.mean("seconds")
        rows.append(
            [
                f"{len(arm.finished)}/{len(arm.runs)}",
                *(amount(arm.mean(name)) for name in ("steps", "completions", "tokens")),
                "–" if seconds is None else duration(seconds),
                *(_share(arm.mean(name)) for name in ("teaching_group", "teaching")),
            ]
        )
    return _arms(findings, rows, "means over the finished runs; teach: share of rows with an advantage", left=False)


def runs_text(findings: Findings, width: int) -> Content:
    """Return a line for each run, in the order in which they train."""
    lines = [Content.styled(f"   {'run':<32}  {'state':<22}  {findings.metric:>8}  held out", FAINT)]
    for place in range(len(findings.study.seeds)):
        for arm in findings.arms:
            run = arm.runs[place]
            value = figure(run.track.values[-1]) if run.track and run.track.steps else "–"
            scores = run.after.get("greedy")
            right = f"{sum(scores.values()) / len(scores):.2f}" if scores else "–"
            _, unscorable = run.unscorable.get("greedy", (0, 0))
            beside = f" ({unscorable} unscorable)" if unscorable else ""
            cells = f"  {_fit(one_line(run.name), 32)}  {_fit(_state(run), 22)}  {value:>8}  {right:>8}{beside}"
            lines.append(Content.assemble((arm.letter, _style(arm)), cells))
            if run.reason:
                lines.append(Content.styled(f"   {one_line(run.reason)}", FAINT))
    return Content("\n").join(lines)


def _state(run: SeedRun) -> str:
    if not run.live:
        return run.state
    step = run.track.steps if run.track else 0
    return f"{run.state}, step {step}" + (f" of {run.steps}" if run.steps else "")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _style(arm: ArmFindings) -> str:
    return f"bold $text-{STYLES[arm.letter]}"


def _arms(findings: Findings, rows: Sequence[Row], note: str, left: bool) -> Content:
    """Return a heading and a line for each arm, led by its letter, a piece of its curve and its label."""
    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(rows[0]))]
    labels = [_fit_most(one_line(arm.label)) for arm in findings.arms]
    widest = max(map(cell_len, labels))
    leads = [(" " * (widest + 8), FAINT)]
    leads += [
        (f"{arm.letter} {sample(arm.letter)} {set_cell_size(label, widest)} ", _style(arm))
        for arm, label in zip(findings.arms, labels, strict=True)
    ]
    lines = []
    for number, ((lead, style), row) in enumerate(zip(leads, rows, strict=True)):
        cells = [
            cell + " " * (size - cell_len(cell)) if left else " " * (size - cell_len(cell)) + cell
            for cell, size in zip(row, widths, strict=True)
        ]
        lines.append(Content.assemble((lead, style), ("  ".join(cells).rstrip(), "" if number else FAINT)))
    return Content("\n").join([*lines, Content.styled(note, FAINT)])


def _fit_most(text: str) -> str:
    return text if cell_len(text) <= LONGEST_LABEL else _fit(text, LONGEST_LABEL)


def _fit(text: str, width: int) -> str:
    """Return the text in exactly ``width`` cells, cut with an ellipsis or padded."""
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
