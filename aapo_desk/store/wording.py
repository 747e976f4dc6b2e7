"""What happened in a run, in words: one place for the screen and for plain lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any


def event_words(kind: str, data: Mapping[str, Any]) -> str:
    """An event as half a sentence. It may quote a model or a user's code: whoever shows it makes it harmless."""
    match kind:
        case "resumed":
            return f"resumed after step {data.get('from_step')}"
        case "dropped":
            return f"dropped {data.get('count')} problems ({data.get('source')}): their prompts are too long"
        case "checkpoint":
            return f"checkpoint {PurePosixPath(str(data.get('path'))).name}"
        case "unpaused":
            return "goes on"
        case "unscorable":
            return f"{data.get('count')} answers could not be scored: {data.get('error')}"
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
        case "finished":
            return "finished"
    facts = ", ".join(f"{key}={value}" for key, value in data.items())
    return f"{kind}: {facts}" if facts else kind


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
