"""The text of a run's events, shared by the screen and by plain-line output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

SPLITS = ("run.seed", "task.source", "task.split", "task.held_out", "task.options", "task.revision")
"""Config paths that decide which problems are held out."""

TROUBLE = frozenset({"not_finite", "went_back", "oom", "memory_short"})
"""Event kinds that report how a run reacted to non-finite numbers or to a shortage of memory."""


def event_words(kind: str, data: Mapping[str, Any]) -> str:
    """Return an event's text, without a final full stop.

    The text may quote model output or messages from the user's code, so the caller must escape it before display.
    """
    match kind:
        case "resumed":
            return f"resumed after step {data.get('from_step')}"
        case "replanned":
            return _replanned_words(data)
        case "forked":
            return forked_words(data)
        case "dropped":
            return f"dropped {data.get('count')} problems ({data.get('source')}) because their prompts are too long"
        case "checkpoint":
            return f"checkpoint {PurePosixPath(str(data.get('path'))).name}"
        case "unpaused":
            return "resumed after the pause"
        case "unscorable":
            return f"{data.get('count')} answers could not be scored: {data.get('error')}"
        case "rewards_failing":
            return (
                f"PAUSED: {data.get('function')} could not score {data.get('count')} answers in a row; "
                f"last error: {data.get('error')}"
            )
        case "disk_full":
            free, needed = (float(data.get(key) or 0) / 2**20 for key in ("free", "needed"))
            return f"PAUSED: the disk is full: {data.get('folder')} has {free:.1f} MB free and needs {needed:.1f} MB"
        case "failed":
            return f"failed: {data.get('error')}"
        case "notice":
            return str(data.get("message"))
        case "alarm":
            parts = [data.get("title"), data.get("message")]
            advice = f" Try: {data['advice']}" if data.get("advice") else ""
            return "ALARM: " + ". ".join(str(part) for part in parts if part) + advice
        case "alarm_over":
            return f"alarm over: {data.get('title')} (since step {data.get('since')})"
        case "probe":
            return _probe_words(data)
        case "not_finite":
            return f"step skipped: a {data.get('what')} was not finite ({data.get('where')})" + _in_a_row(data)
        case "went_back":
            return _went_back_words(data)
        case "oom":
            return f"out of memory in the {data.get('phase')}, which is repeated: {data.get('smaller')}"
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
    """Return the text for a rollback after non-finite numbers."""
    steps, to = data.get("steps") or 1, data.get("to_step")
    why = f"{steps} steps in a row were not finite" if steps > 1 else f"a {data.get('what')} was not finite"
    target = f"the checkpoint of step {to}" if to else "the start"
    return (
        f"rolled back from step {data.get('from_step')} to {target}: {why}; from there the learning rate is "
        f"{data.get('factor')} times the configured one"
    )


def _memory_words(data: Mapping[str, Any]) -> str:
    """Return the text for a run that saves and stops because the system is nearly out of memory."""
    return (
        f"memory is nearly used up, so the run saves and stops before the system kills it: of {data.get('limit')}'s "
        f"{data.get('total_mb')} MB only {data.get('available_mb')} MB are free, and {data.get('reserve_mb')} MB must "
        f"stay free; the trainer uses {data.get('own_mb')} MB. Close other programs or raise the limit, then resume"
    )


def _replanned_words(data: Mapping[str, Any]) -> str:
    """Return the text for a changed number of steps.

    A learning rate schedule that decays to the last step depends on that number, so the text says so.
    """
    steps, schedule = data.get("steps"), data.get("schedule")
    words = f"planned for {steps} steps instead of {data.get('before')}"
    if schedule == "constant":
        return words
    return (
        f"{words}; from now on the {schedule} learning rate decays to the new end, so earlier steps had other "
        f"learning rates than in a single run of {steps} steps"
    )


def forked_words(data: Mapping[str, Any]) -> str:
    """Return which run and step a run was forked from, and which settings differ from its parent's."""
    name, number = data.get("name"), data.get("id")
    changed = data.get("changed") or {}
    words = f"forked from run {name if name == number else f'{name} ({number})'} at step {data.get('step')}"
    if changed:
        words += ", changed: " + "; ".join(f"{path} {old} -> {new}" for path, (old, new) in changed.items())
    if not data.get("evaluations", True):
        words += "; the parent's evaluations are not comparable, so the base model is evaluated again"
    if any(path.startswith(SPLITS) for path in changed):
        words += "; problems held out now may have been trained on in the parent run"
    return words


def _warm_start_words(data: Mapping[str, Any]) -> str:
    """Return the text for the warm start (SFT before step 1) and the accuracy reached by it alone."""
    words = (
        f"warm start: {data.get('solutions')} worked solutions, {data.get('epochs')} epochs ({data.get('updates')} "
        f"updates) in {data.get('seconds') or 0.0:.0f} s; loss {_figure(data.get('loss_before'))} -> "
        f"{_figure(data.get('loss_after'))} nats a token; the solutions' own reward {_figure(data.get('reward'))}"
    )
    if data.get("too_long"):
        words += f"; {data['too_long']} longer than rollout.max_new_tokens left out"
    if held_out := data.get("held_out"):
        sides = (
            f"{side} {_figure(result['accuracy'])} [{_figure(result['low'])}, {_figure(result['high'])}]"
            + (f" ({result['unscorable']} unscorable)" if result.get("unscorable") else "")
            for side, result in held_out.items()
        )
        words += f"; held-out accuracy after it: {', '.join(sides)}"
    return words


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _probe_words(data: Mapping[str, Any]) -> str:
    """Return the measured memory of a step at the longest lengths, and its deviation from the estimate."""
    changes = "; ".join(data.get("smaller") or [])
    smaller = f". Out of memory, so the execution plan was reduced: {changes}" if changes else ""
    measured, estimated = data.get("measured"), data.get("estimated") or {}
    if not measured:
        return f"probe: the memory of a step cannot be measured on this device{smaller}"
    scope = "" if data.get("device") == "cuda" else ", not counting the loaded model"
    parts = [
        f"{phase} {measured[phase] / 2**20:.0f} MB, estimated {estimated[phase] / 2**20:.0f} MB "
        f"({measured[phase] / max(1, estimated[phase]) - 1:+.0%})"
        for phase in ("update", "rollout")
    ]
    return f"probe: memory at the longest lengths{scope}: {'; '.join(parts)}{smaller}"
