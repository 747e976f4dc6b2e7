"""What Home lists: the runs there are, and the presets to start one from. Read in threads.

``launch`` and ``presets`` are imported where they are used: the first frame does not wait for them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from aapo_desk.config import ConfigError, RunConfig, resolve
from aapo_desk.store import RunDirectory, RunReader, list_runs
from aapo_desk.tui.labels import LIVE_STATES
from aapo_desk.tui.poll import READ_ERRORS


@dataclass(frozen=True)
class RunRow:
    """A run as Home lists it."""

    run: RunDirectory
    name: str
    state: str
    model: str
    step: int
    steps: int
    reward: float | None
    created: float


class RunList:
    """Reads all runs for Home; what a run without a trainer left behind is read once."""

    def __init__(self) -> None:
        self._cache: dict[str, tuple[tuple[int, int], RunRow]] = {}

    def read(self) -> list[RunRow]:
        """The runs, newest first. A run that cannot be read is listed with what can be said of it."""
        rows = [self._row(run) for run in list_runs()]
        self._cache = {row.run.id: self._cache[row.run.id] for row in rows if row.run.id in self._cache}
        return rows

    def _row(self, run: RunDirectory) -> RunRow:
        from aapo_desk import launch

        state = launch.state(run)
        stamp = (_modified(run.status), _modified(run.meta))
        cached = self._cache.get(run.id)
        if cached and cached[0] == stamp and cached[1].state == state and state not in LIVE_STATES:
            return cached[1]
        row = _read_row(run, state)
        self._cache[run.id] = (stamp, row)
        return row


def _read_row(run: RunDirectory, state: str) -> RunRow:
    model, steps, step, reward = "?", 0, 0, None
    try:
        config = run.read_config()
        model, steps = config.model.id, config.run.steps
        last = RunReader(run).last_metrics()
        if last:
            step, reward = last[0], last[1].get("reward")
    except READ_ERRORS:
        pass  # its own screen tells why
    status = run.read_status()
    return RunRow(run, run.name, state, model, step, int(status.get("steps") or steps), reward, created(run))


def _modified(path: Any) -> int:
    try:
        return int(path.stat().st_mtime_ns)
    except OSError:
        return 0


def created(run: RunDirectory) -> float:
    """When the run was made, from its id; where that tells nothing, from its configuration file."""
    try:
        return time.mktime(time.strptime(run.id[:15], "%Y%m%d-%H%M%S"))
    except ValueError:
        return _modified(run.config) / 1e9


@dataclass(frozen=True)
class PresetRow:
    """A preset as Home offers it. ``config`` is None where ``error`` says what is wrong with it."""

    name: str
    title: str
    notes: list[str]
    config: RunConfig | None
    error: str = ""


def read_presets() -> list[PresetRow]:
    """All presets, the demo first."""
    from aapo_desk import presets

    rows: list[PresetRow] = []
    for preset in presets.list_presets():
        if preset.error:
            rows.append(PresetRow(preset.name, preset.title, preset.notes, None, preset.error))
            continue
        config: RunConfig | None
        try:
            config, error = resolve(preset.data, origin=preset.path.name), ""
        except ConfigError as problem:
            config, error = None, str(problem)
        rows.append(PresetRow(preset.name, preset.title, preset.notes, config, error))
    return sorted(rows, key=lambda row: (row.name != "demo", row.name))
