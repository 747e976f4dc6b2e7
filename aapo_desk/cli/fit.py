"""The ``fit`` command: whether a preset's run fits this machine, or a GPU with a given amount of memory."""

from __future__ import annotations

import json as plain_json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aapo_desk.cli.output import complain, printable, say, say_json, table
from aapo_desk.cli.train import Sets
from aapo_desk.config import ConfigError, Problem, RunConfig, parse_set

if TYPE_CHECKING:
    from aapo_desk.fit import Change, Fit, Room
    from aapo_desk.memory import ModelShape, Plan

BAR = 40
MOST_VRAM = 1024

SPILLS = (
    "on Windows and WSL the driver does not fail when GPU memory runs out: it continues in system memory, and a "
    "step takes several times as long. So trust the estimate: do not start this run with these settings."
)
FAILS = "with these settings the run would not have enough memory"
DESKTOP = (
    "a GPU that also drives a desktop has 0.5 to 1 GB less, and the amount changes during training: close browsers and "
    "games before a long run"
)


def add_to(app: typer.Typer) -> None:
    app.command("fit")(fit)


def fit(
    preset: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="Preset name or YAML file.", show_default=False)],
    sets: Sets = None,
    vram: Annotated[
        float | None,
        typer.Option("--vram", metavar="GB", help="Check against a GPU with this much memory instead of this machine."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Check whether a run fits in memory, what takes the memory, and what to change if it does not.

    Nothing is downloaded or loaded.
    """
    from aapo_desk import fit as fitting
    from aapo_desk import memory, presets

    config = presets.load(preset, parse_set(sets or []))
    room = _room(config, vram)
    try:
        shape = fitting.shape_of(config.model)
    except ValueError as error:
        complain(f"cannot estimate the memory for {config.model.id}: {error}")
        raise typer.Exit(1) from None
    found = fitting.judge(shape, config, room)
    document = {
        "preset": preset,
        "model": config.model.id,
        "device": room.device,
        "card": room.name,
        "verdict": found.verdict,
        "needed": found.needed,
        "least": found.least,
        "full": found.full,
        "free": room.free,
        "total": room.total,
        "peak_phase": found.peak_phase,
        "terms": [
            {"name": term.name, "phase": term.phase, "bytes": term.bytes, "at_peak": term.at_peak}
            for term in fitting.terms(found)
        ],
        "plan": _plan_json(memory.plan(shape, config, room.free, room.device), found),
        "changes": [_change_json(change) for change in _changes(shape, config, found)],
        "notes": _notes(shape, config, found, given=vram is not None),
    }
    if json:
        say_json(document)
    else:
        say("\n".join(map(printable, lines(document))))


def _room(config: RunConfig, vram: float | None) -> Room:
    """Return the memory to check against. Raises ConfigError if the device does not exist."""
    from aapo_desk import fit as fitting
    from aapo_desk import hardware

    if vram is None:
        room = fitting.room(config.model.device, hardware.machine())
        if room is None:
            message = "found no NVIDIA GPU on this machine; give the memory of a GPU in GB, such as --vram 12"
            raise ConfigError(Problem("model.device", message, config.model.device))
        return room
    if not 0 < vram <= MOST_VRAM or math.isnan(vram):
        raise ConfigError(
            Problem("--vram", f"must be the memory of a GPU in GB, above 0 and at most {MOST_VRAM}", vram)
        )
    if config.model.device == "cpu":
        message = "applies to GPUs, but this run uses the CPU; add --set model.device=cuda"
        raise ConfigError(Problem("--vram", message, vram))
    size = int(vram * 2**30)
    return fitting.Room("cuda", f"a GPU with {vram:g} GB", size, size, fitting.spills())


def _changes(shape: ModelShape, config: RunConfig, found: Fit) -> list[Change]:
    from aapo_desk import fit as fitting

    return fitting.remedies(shape, config, found.room) if found.verdict == "too large" else []


def _plan_json(plan: Plan, found: Fit) -> dict[str, Any] | None:
    """Return the planned batch sizes as JSON, or None if the run is too large."""
    if found.verdict == "too large":
        return None
    return {
        "token_budget": plan.token_budget,
        "batch_rows": plan.batch_rows,
        "gradient_checkpointing": plan.gradient_checkpointing,
        "shadow_weights": plan.shadow_weights,
    }


def _change_json(change: Change) -> dict[str, Any]:
    fit = change.fit
    return {
        "set": dict(change.values),
        "costs": list(change.costs),
        "verdict": fit.verdict,
        "needed": fit.needed,
    }


def _notes(shape: ModelShape, config: RunConfig, found: Fit, given: bool) -> list[str]:
    from dataclasses import replace

    from aapo_desk.fit import judge

    room = found.room
    notes = []
    if found.verdict == "too large":
        notes.append(SPILLS if room.spills else FAILS)
        alone = judge(shape, config, replace(room, free=room.total))
        if alone.verdict != "too large":
            held = gigabytes(room.total - room.free)
            notes.append(f"other programs use {held} GB of it; without them the verdict would be: {alone.verdict}")
    elif found.verdict == "tight":
        notes.append(f"it trains in smaller batches, slower than at full speed, which needs {gigabytes(found.full)} GB")
    if room.device == "cuda" and (given or room.free - found.needed < 2**30):
        notes.append(DESKTOP)
    return notes


def lines(document: dict[str, Any]) -> list[str]:
    """Return the document as lines of text."""
    verdict, needed, free = document["verdict"], document["needed"], document["free"]
    least = "" if verdict == "fits" else "at least "
    place = document["card"] if document["device"] == "cuda" else "the memory of this machine"
    header = [
        f"{document['model']} on {place}: {verdict}",
        f"[{bar(needed / free if free else 1.0)}] {least}{gigabytes(needed)} of {gigabytes(free)} GB free, "
        f"peak in the {document['peak_phase']}",
    ]
    return [*header, "", *_table(document), "", *_plan_lines(document["plan"]), *document["notes"], *_advice(document)]


def bar(share: float) -> str:
    """Return a bar of ``BAR`` characters for a share of the whole; all exclamation marks if it is above 1."""
    return "!" * BAR if share > 1 else ("#" * max(1, round(share * BAR))).ljust(BAR, ".")


def _table(document: dict[str, Any]) -> list[str]:
    """Return the memory terms as a table. The last column has the terms of the peak and adds up to what is needed."""
    rows = [
        [term["phase"], term["name"], _gigabytes(term["bytes"]), _gigabytes(term["bytes"]) if term["at_peak"] else ""]
        for term in document["terms"]
    ]
    rows.append(["", "total", "", _gigabytes(document["needed"])])
    return table(["when", "what", "GB", "at the peak"], rows, right=("GB", "at the peak"))


def _plan_lines(plan: dict[str, Any] | None) -> list[str]:
    if plan is None:
        return []
    saves = "recomputes activations in the backward pass" if plan["gradient_checkpointing"] else "keeps the activations"
    keeps = ", with dequantized weights kept" if plan["shadow_weights"] else ""
    return [
        f"planned: up to {plan['token_budget']} tokens per micro-batch of the update, which {saves}; up to "
        f"{plan['batch_rows']} rows decoded at once{keeps}"
    ]


def _advice(document: dict[str, Any]) -> list[str]:
    if document["verdict"] != "too large":
        return []
    if not document["changes"]:
        return ["no setting makes it fit: use a smaller model"]
    many = len(document["changes"]) > 1
    said = ["each of these makes it fit, the cheapest first:" if many else "this makes it fit:"]
    for change in document["changes"]:
        sets = " ".join(_set(path, value) for path, value in change["set"].items())
        said += [f"  {sets}", f"      {'; '.join(change['costs'])}: {change['verdict']}, {_change_room(change)}"]
    return said


def _change_room(change: dict[str, Any]) -> str:
    least = "" if change["verdict"] == "fits" else "at least "
    return f"{least}{gigabytes(change['needed'])} GB"


def _set(path: str, value: Any) -> str:
    text = value if isinstance(value, str) else plain_json.dumps(value)
    return f"--set {path}={text}"


def gigabytes(count: float) -> str:
    """Return bytes as GB (2**30 bytes), the unit that GPUs are sold by."""
    return f"{count / 2**30:.1f}"


def _gigabytes(count: float) -> str:
    return f"{count / 2**30:.2f}"
