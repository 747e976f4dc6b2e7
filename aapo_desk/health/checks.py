"""Running every alarm check on a run.

Each check looks at a window of recent steps and returns an alarm or None, or raises NotYet if there is too little data.
If its alarm is already active (``stands``), it uses a threshold further inside the healthy range, so that the alarm
does not flicker.
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
    """Return the alarms that are active after the last step of ``history``, worst first.

    Args:
        history: At least the run's first WINDOW and last LONGEST_WINDOW steps.
        evaluations: The run's evaluations by step.
        config: The run's configuration.
        facts: What neither metrics nor configuration contain.
        standing: The alarms active after the previous step. One that continues is returned unchanged.
    """
    before = {alarm.kind: alarm for alarm in standing}
    if not history:
        return sorted(before.values(), key=lambda alarm: alarm.rank)
    view = View(history, evaluations, config, facts)
    alarms = [alarm for kind in CHECKS if (alarm := _asked(kind, view, before.get(kind))) is not None]
    return sorted(alarms, key=lambda alarm: alarm.rank)


def _asked(kind: str, view: View, old: Alarm | None) -> Alarm | None:
    """Run one check. Returns the old alarm if it continues under the same title, or if there is too little data."""
    try:
        new = CHECKS[kind](view, old is not None)
    except NotYet:
        return old
    return old if new and old and new.title == old.title else new
