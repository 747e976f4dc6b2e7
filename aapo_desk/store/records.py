"""The records stored for a run, and the schema of its database."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCHEMA = """
CREATE TABLE metrics(step INTEGER PRIMARY KEY, time REAL NOT NULL, data TEXT NOT NULL);
CREATE TABLE histograms(step INTEGER NOT NULL, name TEXT NOT NULL, low REAL NOT NULL, high REAL NOT NULL,
    counts TEXT NOT NULL, PRIMARY KEY(step, name)) WITHOUT ROWID;
CREATE TABLE samples(id INTEGER PRIMARY KEY, step INTEGER NOT NULL, prompt_id TEXT NOT NULL, row INTEGER NOT NULL,
    prompt TEXT NOT NULL, completion TEXT NOT NULL, answer TEXT NOT NULL, reward REAL, rewards TEXT NOT NULL,
    group_advantage REAL, margin REAL, advantage REAL, tokens INTEGER NOT NULL, truncated INTEGER NOT NULL,
    is_reference INTEGER NOT NULL);
CREATE INDEX samples_by_step ON samples(step);
CREATE TABLE system(time REAL NOT NULL, data TEXT NOT NULL);
CREATE TABLE events(id INTEGER PRIMARY KEY, time REAL NOT NULL, step INTEGER NOT NULL, kind TEXT NOT NULL,
    data TEXT NOT NULL);
CREATE TABLE evaluations(step INTEGER NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY(step, name));
CREATE TABLE run(key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
"""The schema of a new database. Every change to it needs a migration."""

MIGRATIONS: tuple[str, ...] = ()
"""SQL statements separated by semicolons: the first entry upgrades version 1 to 2, the next one 2 to 3, and so on."""

SCHEMA_VERSION = 1 + len(MIGRATIONS)


def to_json(data: Mapping[str, Any]) -> str:
    """Return data as JSON text, with null for NaN and infinities, which JSON does not have."""
    return json.dumps({key: finite(value) for key, value in data.items()}, ensure_ascii=False)


def from_json(text: Any) -> dict[str, Any]:
    """Parse a JSON object. Raises ValueError for anything else, which a damaged database may contain."""
    value = json.loads(text) if isinstance(text, str) else None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {str(text)[:40]!r}")
    return value


def finite(value: Any) -> Any:
    """Return a value with every non-finite float in it replaced by None, also inside mappings and lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


@dataclass(frozen=True)
class Histogram:
    """Counts of a step's values in equal bins between ``low`` and ``high``; the bin edges stay fixed within a run."""

    low: float
    high: float
    counts: list[int]


@dataclass(frozen=True)
class Sample:
    """A stored completion. ``row`` numbers the pairs: policy row i and reference row i belong together."""

    step: int
    prompt_id: str
    row: int
    prompt: str
    completion: str
    answer: str
    reward: float | None
    rewards: dict[str, float | None]
    group_advantage: float | None
    margin: float | None
    advantage: float | None
    tokens: int
    truncated: bool
    is_reference: bool


@dataclass(frozen=True)
class Event:
    id: int
    time: float
    step: int
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class StepRecord:
    """Everything recorded for one step, written in one transaction."""

    step: int
    time: float
    metrics: dict[str, float]
    histograms: dict[str, Histogram]
    samples: list[Sample]
