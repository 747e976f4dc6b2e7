"""An alarm, and which of them stand after a run's events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

Severity = Literal["critical", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note")
"""From the worst: the run does nothing of use; it may come to nothing; worth a look."""

BEGINS, ENDS = "alarm", "alarm_over"
"""The kinds of the events."""


@dataclass(frozen=True)
class Alarm:
    """One thing that is wrong: in words with its numbers, what to try, and the step from which it can be seen."""

    kind: str
    title: str
    message: str
    advice: str
    since: int
    severity: Severity

    @property
    def rank(self) -> tuple[int, int, str]:
        """Sorts the worst first, then the oldest."""
        return SEVERITIES.index(self.severity), self.since, self.kind

    def as_json(self) -> dict[str, Any]:
        """As it stands in an event, and as ``from_json`` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Alarm:
        """An alarm out of an event's data, which may be of another version: what is missing is left empty."""
        texts = {key: str(data.get(key) or "") for key in ("kind", "title", "message", "advice")}
        severity = data.get("severity")
        since = data.get("since")
        return cls(
            **texts,
            since=since if isinstance(since, int) else 0,
            severity=cast(Severity, severity) if severity in SEVERITIES else "warning",
        )


def standing(events: Iterable[tuple[str, Mapping[str, Any]]], before: Iterable[Alarm] = ()) -> list[Alarm]:
    """The alarms that stand after these events (kind and data, oldest first), the worst first.

    ``before``: those that stood already. A resume changes nothing: an alarm of a part that is done again stands until
    the trainer says that it is over.
    """
    alarms = {alarm.kind: alarm for alarm in before}
    for kind, data in events:
        if kind == BEGINS:
            alarm = Alarm.from_json(data)
            alarms[alarm.kind] = alarm
        elif kind == ENDS:
            alarms.pop(str(data.get("kind") or ""), None)
    return sorted(alarms.values(), key=lambda alarm: alarm.rank)
