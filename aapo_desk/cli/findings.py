"""A study's findings as text and as JSON."""

from __future__ import annotations

from typing import Any

from aapo_desk.cli.lines import interval
from aapo_desk.cli.output import printable, table
from aapo_desk.evaluation import Estimate
from aapo_desk.store.records import finite
from aapo_desk.studies import Side, figure
from aapo_desk.studies.findings import ArmFindings, Contrast, Findings, SeedRun
from aapo_desk.studies.held_out import SIDES

ASKED: dict[Side, str] = {
    "greedy": "share of held-out problems answered right (greedy decoding)",
    "sampled": "share of held-out problems answered right (sampled as in the rollout)",
}


def lines(findings: Findings) -> list[str]:
    """Return the findings as text: progress, cost, share of completions that teach, and accuracy."""
    study = findings.study
    return [
        printable(f"study {study.name}: {study.words}"),
        *_progress(findings),
        "",
        f"{findings.metric}: exponential moving average at the end, mean over seeds [lowest, highest]",
        "by group, with margin: share of completions whose advantage is not zero, without and with AAPO's margin",
        *_spent(findings),
        *(line for side in SIDES for line in ["", ASKED[side], *_outcomes(findings, side)]),
        "",
        *notes(findings),
    ]


def _progress(findings: Findings) -> list[str]:
    said = [f"{findings.done} of {len(findings.runs)} runs finished"]
    for run in findings.runs:
        if run.state not in ("finished", "waiting"):
            why = f": {run.reason}" if run.reason else ""
            said.append(printable(f"{run.name} is {run.state}{why}"))
    if findings.left and not findings.at_work:
        said.append(f"resume with: aapo-desk study run {findings.study.id}")
    return said


def _spent(findings: Findings) -> list[str]:
    header = [
        "", "arm", "runs", "steps", "completions", "tokens", "seconds", findings.metric, "by group", "with margin",
    ]  # fmt: skip
    rows = [
        [
            arm.letter,
            printable(arm.label),
            f"{len(arm.finished)} of {len(arm.runs)}",
            *(_rounded(arm.mean(name)) for name in ("steps", "completions", "tokens", "seconds")),
            _end(arm),
            *(_share(arm.mean(name)) for name in ("teaching_group", "teaching")),
        ]
        for arm in findings.arms
    ]
    return table(header, rows, right=[*header[3:7], *header[8:]])


def _end(arm: ArmFindings) -> str:
    if not arm.band.seeds:
        return "-"
    value, low, high = (figure(curve[-1]) for curve in (arm.band.mean, arm.band.low, arm.band.high))
    return f"{value} [{low}, {high}]"


def _outcomes(findings: Findings, side: Side) -> list[str]:
    baseline = findings.arms[0]
    rows = []
    for arm in findings.arms:
        outcome = arm.sides[side]
        against = "baseline" if arm is baseline else _against(outcome.against)
        estimates = [_interval(outcome.base), _interval(outcome.tuned), _interval(outcome.gain, "+")]
        rows.append([arm.letter, printable(arm.label), *estimates, against])
    notes = [f"{arm.letter}, {note}" for arm in findings.arms for note in arm.sides[side].notes]
    return [*table(["", "arm", "base", "tuned", "gain", f"tuned, against {baseline.letter}"], rows), *notes]


def _against(contrast: Contrast | None) -> str:
    return f"{_interval(contrast.estimate, '+')} {contrast.words}" if contrast else "-"


def notes(findings: Findings) -> list[str]:
    """Return notes on what the intervals are valid for."""
    seeds = {arm.sides["greedy"].against.seeds for arm in findings.arms if arm.sides["greedy"].against}
    said = ["[95 % intervals]: each pair has the same problem, seed, prompt and scoring."]
    if not seeds:
        return [*said, "Nothing to compare yet."]
    fewest = min(seeds)
    if fewest == 1:
        return [*said, "One seed so far: the intervals are valid for other problems, but not for other seeds."]
    counted = f"{fewest}" if len(seeds) == 1 else f"{fewest} to {max(seeds)}"
    return [
        *said,
        f"{counted} seeds: the intervals are valid for other seeds and problems; more seeds make them narrower.",
    ]


def _interval(estimate: Estimate | None, sign: str = "") -> str:
    return interval(estimate.as_json(), "mean", sign) if estimate else "-"


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def document(findings: Findings) -> dict[str, Any]:
    """Return the findings as JSON."""
    study = findings.study
    return {
        "id": study.id,
        "name": study.name,
        "preset": study.preset,
        "varied": study.varied,
        "budget": {"kind": study.budget.kind, "amount": study.budget.amount},
        "seeds": list(study.seeds),
        "metric": findings.metric,
        "runs": len(findings.runs),
        "finished": findings.done,
        "failed": len(findings.failed),
        "at_work": findings.at_work,
        "baseline": findings.arms[0].letter,
        "arms": [_arm_document(arm) for arm in findings.arms],
        "notes": notes(findings),
    }


def _arm_document(arm: ArmFindings) -> dict[str, Any]:
    names = ("steps", "completions", "tokens", "seconds", "teaching_group", "teaching")
    curve = arm.band
    return {
        "letter": arm.letter,
        "label": arm.label,
        "mean": {name: arm.mean(name) for name in names},
        "evaluation": {
            side: {name: getattr(found, name).as_json() if getattr(found, name) else None
                   for name in ("base", "tuned", "gain")}
            | {"against_baseline": _contrast_document(found.against), "notes": list(found.notes)}
            for side, found in arm.sides.items()
        },
        "curve": {"seeds": curve.seeds, "x": finite(list(curve.xs)), "mean": finite(list(curve.mean)),
                  "low": finite(list(curve.low)), "high": finite(list(curve.high))},
        "runs": [_run_document(run) for run in arm.runs],
    }  # fmt: skip


def _contrast_document(contrast: Contrast | None) -> dict[str, Any] | None:
    if contrast is None:
        return None
    counted = {"pairs": contrast.pairs, "seeds": contrast.seeds, "said": contrast.words}
    return contrast.estimate.as_json() | counted


def _run_document(run: SeedRun) -> dict[str, Any]:
    track = run.track
    spent = None
    if track and track.steps:
        spent = {
            "steps": track.steps,
            "completions": track.completions[-1],
            "tokens": track.tokens,
            "seconds": track.seconds[-1],
            "teaching_group": track.teaching_group,
            "teaching": track.teaching,
        }
    right = {side: sum(scores.values()) / len(scores) for side, scores in run.after.items() if scores}
    return {
        "seed": run.seed,
        "name": run.name,
        "id": run.run.id if run.run else None,
        "state": run.state,
        "reason": run.reason or None,
        "spent": spent,
        "tuned": right,
        "unscorable": {side: tuned for side, (_, tuned) in run.unscorable.items()},
    }
