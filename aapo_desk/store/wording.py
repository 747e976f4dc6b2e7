"""What happened in a run, in words: one place for the screen and for plain lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

SPLITS = ("run.seed", "task.source", "task.split", "task.held_out", "task.options", "task.revision")
"""Settings that decide which problems are held out."""

TROUBLE = frozenset({"not_finite", "went_back", "oom", "memory_short"})
"""Events that tell what a run did about numbers or memory that failed."""


def event_words(kind: str, data: Mapping[str, Any]) -> str:
    """An event as half a sentence. It may quote a model or a user's code: whoever shows it makes it harmless."""
    match kind:
        case "resumed":
            return f"resumed after step {data.get('from_step')}"
        case "replanned":
            return _replanned_words(data)
        case "forked":
            return forked_words(data)
        case "dropped":
            return f"dropped {data.get('count')} problems ({data.get('source')}): their prompts are too long"
        case "checkpoint":
            return f"checkpoint {PurePosixPath(str(data.get('path'))).name}"
        case "unpaused":
            return "goes on"
        case "unscorable":
            return f"{data.get('count')} answers could not be scored: {data.get('error')}"
        case "rewards_failing":
            return (
                f"PAUSED: {data.get('count')} answers in a row could not be scored by {data.get('function')}, "
                f"the last: {data.get('error')}"
            )
        case "disk_full":
            free, needed = (float(data.get(key) or 0) / 2**20 for key in ("free", "needed"))
            return f"PAUSED: the disk is full: {data.get('folder')} had {free:.1f} MB free and needed {needed:.1f} MB"
        case "failed":
            return f"failed: {data.get('error')}"
        case "notice":
            return str(data.get("message"))
        case "alarm":
            said = [data.get("title"), data.get("message")]
            tried = f" Try: {data['advice']}" if data.get("advice") else ""
            return "ALARM: " + ". ".join(str(part) for part in said if part) + tried
        case "alarm_over":
            return f"over: {data.get('title')} (since step {data.get('since')})"
        case "probe":
            return _probe_words(data)
        case "not_finite":
            return f"step left out: a {data.get('what')} was not finite ({data.get('where')})" + _in_a_row(data)
        case "went_back":
            return _went_back_words(data)
        case "oom":
            return f"memory ran out in the {data.get('phase')}, which is done again: {data.get('smaller')}"
        case "memory_short":
            return _memory_words(data)
        case "warm_start":
            return _warm_start_words(data)
        case "finished":
            return "finished"
    facts = ", ".join(f"{key}={value}" for key, value in data.items())
    return f"{kind}: {facts}" if facts else kind


def _in_a_row(data: Mapping[str, Any]) -> str:
    count = data.get("in_a_row") or 1
    return f"; {count} in a row" if count > 1 else ""


def _went_back_words(data: Mapping[str, Any]) -> str:
    """A run that has left steps behind because their numbers were not finite."""
    steps, to = data.get("steps") or 1, data.get("to_step")
    why = f"{steps} steps in a row were not finite" if steps > 1 else f"a {data.get('what')} was not finite"
    where = f"the checkpoint of step {to}" if to else "the start"
    return (
        f"went back from step {data.get('from_step')} to {where}: {why}; from there on the learning rate is "
        f"{data.get('factor')} of what was configured"
    )


def _memory_words(data: Mapping[str, Any]) -> str:
    """A run that stops before the system has no memory left."""
    return (
        f"memory is nearly used up, so the run saves and stops before the system kills it: of {data.get('limit')}'s "
        f"{data.get('total_mb')} MB only {data.get('available_mb')} are left, and {data.get('reserve_mb')} are to stay "
        f"free; the trainer holds {data.get('own_mb')} MB. Close other programs or allow it more, then resume"
    )


def _replanned_words(data: Mapping[str, Any]) -> str:
    """A plan that was changed. The rate of a schedule that ends with the plan depends on where that is."""
    steps, schedule = data.get("steps"), data.get("schedule")
    words = f"planned to take {steps} steps instead of {data.get('before')}"
    if schedule == "constant":
        return words
    return (
        f"{words}; the {schedule} learning rate falls to that end from now on, so the steps before this one had other "
        f"rates than in a single run of {steps} steps"
    )


def forked_words(data: Mapping[str, Any]) -> str:
    """Where a run was forked from, and which settings are its own."""
    name, number = data.get("name"), data.get("id")
    changed = data.get("changed") or {}
    words = f"forked from run {name if name == number else f'{name} ({number})'} at step {data.get('step')}"
    if changed:
        words += ", changed: " + "; ".join(f"{path} {old} -> {new}" for path, (old, new) in changed.items())
    if not data.get("evaluations", True):
        words += "; what was measured before is not comparable, so the base is measured anew"
    if any(path.startswith(SPLITS) for path in changed):
        words += "; problems that are held out now may have been trained on before"
    return words


def _warm_start_words(data: Mapping[str, Any]) -> str:
    """The supervised phase before step 1, and what it alone gave."""
    words = (
        f"warm start: {data.get('solutions')} worked solutions, {data.get('epochs')} epochs ({data.get('updates')} "
        f"updates) in {data.get('seconds') or 0.0:.0f} s; loss {_figure(data.get('loss_before'))} -> "
        f"{_figure(data.get('loss_after'))} nats a token; the solutions' own reward {_figure(data.get('reward'))}"
    )
    if data.get("too_long"):
        words += f"; {data['too_long']} longer than rollout.max_new_tokens left out"
    if held_out := data.get("held_out"):
        sides = (
            f"{side} {_figure(found['accuracy'])} [{_figure(found['low'])}, {_figure(found['high'])}]"
            + (f" ({found['unscorable']} unscorable)" if found.get("unscorable") else "")
            for side, found in held_out.items()
        )
        words += f"; held-out accuracy after it: {', '.join(sides)}"
    return words


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _probe_words(data: Mapping[str, Any]) -> str:
    """What a step takes at the longest lengths, and how far that is from the estimate."""
    changes = "; ".join(data.get("smaller") or [])
    smaller = f". Memory ran out, so the plan was made smaller: {changes}" if changes else ""
    measured, estimated = data.get("measured"), data.get("estimated") or {}
    if not measured:
        return f"probe: how much memory a step takes cannot be measured here{smaller}"
    beside = "" if data.get("device") == "cuda" else " beside the loaded model"
    parts = [
        f"the {phase} {measured[phase] / 2**20:.0f} MB where {estimated[phase] / 2**20:.0f} were estimated "
        f"({measured[phase] / max(1, estimated[phase]) - 1:+.0%})"
        for phase in ("update", "rollout")
    ]
    return f"probe: at the longest lengths{beside} {', '.join(parts)}{smaller}"
