"""The alarm record, and deriving the active alarms from a run's events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

Severity = Literal["critical", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note")
"""Worst first: the run is useless as it is ("critical"); it may fail ("warning"); worth a look ("note")."""

BEGINS, ENDS = "alarm", "alarm_over"
"""The kinds of the events that begin and end an alarm."""


@dataclass(frozen=True)
class Alarm:
    """One problem of a run: a title, a message with figures, advice, and the first step that shows it (``since``)."""

    kind: str
    title: str
    message: str
    advice: str
    since: int
    severity: Severity

    @property
    def rank(self) -> tuple[int, int, str]:
        """A sort key: worst severity first, then oldest."""
        return SEVERITIES.index(self.severity), self.since, self.kind

    def as_json(self) -> dict[str, Any]:
        """Return the alarm as an event's data, which ``from_json`` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Alarm:
        """Return the alarm in an event's data. Fields missing there, as in another version's, get default values."""
        texts = {key: str(data.get(key) or "") for key in ("kind", "title", "message", "advice")}
        severity = data.get("severity")
        since = data.get("since")
        return cls(
            **texts,
            since=since if isinstance(since, int) else 0,
            severity=cast(Severity, severity) if severity in SEVERITIES else "warning",
        )


def standing(events: Iterable[tuple[str, Mapping[str, Any]]], before: Iterable[Alarm] = ()) -> list[Alarm]:
    """Return the alarms that are active after these events (kind and data, oldest first), worst first.

    ``before`` are the alarms that were already active. A resume changes nothing: if steps are repeated, their alarm
    stays active until the trainer ends it.
    """
    alarms = {alarm.kind: alarm for alarm in before}
    for kind, data in events:
        if kind == BEGINS:
            alarm = Alarm.from_json(data)
            alarms[alarm.kind] = alarm
        elif kind == ENDS:
            alarms.pop(str(data.get("kind") or ""), None)
    return sorted(alarms.values(), key=lambda alarm: alarm.rank)
