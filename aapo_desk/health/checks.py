"""The alarms of a run: every check asked once.

Each looks at a window of recent steps and answers with an alarm or None; NotYet where too little is known. An alarm
that stands (``stands``) is held to a threshold further inside the healthy range, so that it does not flicker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aapo_desk.config import RunConfig
from aapo_desk.health import signals, updates
from aapo_desk.health.alarm import Alarm
from aapo_desk.health.view import Facts, History, NotYet, View

CHECKS: dict[str, Callable[[View, bool], Alarm | None]] = {
    "truncation": signals.truncation,
    "no_reward": signals.no_reward,
    "no_signal": signals.no_signal,
    "margin_saturated": signals.margin_saturated,
    "gradient": updates.gradient,
    "entropy_collapse": updates.entropy_collapse,
    "non_finite": updates.non_finite,
    "unscorable": signals.unscorable,
    "adapter_still": updates.adapter_still,
    "disagreement": updates.disagreement,
    "memory": updates.memory_end,
    "evaluation_flat": signals.evaluation_flat,
}
KINDS = tuple(CHECKS)


def check(
    history: History,
    evaluations: Mapping[int, Mapping[str, Any]],
    config: RunConfig,
    facts: Facts,
    standing: Iterable[Alarm] = (),
) -> list[Alarm]:
    """The alarms after the last step of ``history``, the worst first.

    ``history``: the run's first WINDOW steps and its last LONGEST_WINDOW, at least. ``standing``: the alarms after the
    step before; one that goes on is handed back as it was.
    """
    before = {alarm.kind: alarm for alarm in standing}
    if not history:
        return sorted(before.values(), key=lambda alarm: alarm.rank)
    view = View(history, evaluations, config, facts)
    found = [alarm for kind in CHECKS if (alarm := _asked(kind, view, before.get(kind))) is not None]
    return sorted(found, key=lambda alarm: alarm.rank)


def _asked(kind: str, view: View, old: Alarm | None) -> Alarm | None:
    try:
        new = CHECKS[kind](view, old is not None)
    except NotYet:
        return old
    return old if new and old and new.title == old.title else new
