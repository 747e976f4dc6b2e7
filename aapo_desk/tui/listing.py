"""The runs and presets that Home lists. Both are read in threads.

``launch`` and ``presets`` are imported where they are used, so that the first frame does not wait for them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aapo_desk.config import ConfigError, RunConfig, resolve
from aapo_desk.store import Budget, RunDirectory, RunReader, Trend, budget_of, list_runs
from aapo_desk.tui.poll import READ_ERRORS

if TYPE_CHECKING:
    from aapo_desk.hardware import Machine


@dataclass(frozen=True)
class RunRow:
    """A run as Home lists it. ``rewards``: the reward over its steps, evenly thinned; None for steps without one."""

    run: RunDirectory
    name: str
    state: str
    model: str
    step: int
    steps: int
    reward: float | None
    created: float
    pinned: bool = False
    rewards: tuple[float | None, ...] = ()
    budget: Budget | None = None

    @property
    def rise(self) -> float | None:
        """The mean reward of the last quarter minus that of the first quarter; None with fewer than four values."""
        known = [value for value in self.rewards if value is not None]
        quarter = len(known) // 4
        return (sum(known[-quarter:]) - sum(known[:quarter])) / quarter if quarter else None


class RunList:
    """A reader of all runs for Home that reads only what has changed since its last call."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def read(self) -> list[RunRow]:
        """Return the runs, newest first. A run that cannot be read is listed with the parts that are known."""
        from aapo_desk import launch

        runs = list_runs()
        self._known = {run.id: self._known.get(run.id) or _Known(run) for run in runs}
        return [self._known[run.id].row(launch.state(run)) for run in runs]


class _Known:
    """The known parts of one run, each with the stamp of the files it was read from."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._reader = RunReader(run)
        self._stamps: dict[str, Stamp] = {}
        self._trend = Trend()
        self._row = RunRow(run, run.id, "", "?", 0, 0, None, created(run))

    def row(self, state: str) -> RunRow:
        """Return the run's current row; the same object as before if nothing has changed."""
        new = self._row
        for part, files, read in (
            ("config", (self._run.config, self._run.plan), self._read_config),
            ("meta", (self._run.meta,), self._read_meta),
            ("numbers", (self._run.database, self._run.write_ahead), self._read_numbers),
            ("status", (self._run.status,), self._read_status),
        ):
            stamp = tuple(_stamp(file) for file in files)  # taken first, so that a later write is read the next time
            if stamp != self._stamps.get(part):
                try:
                    new = read(new)
                    self._stamps[part] = stamp
                except READ_ERRORS:
                    pass  # the run's monitor shows the reason
        new = replace(new, state=state)
        if new != self._row:
            self._row = new
        return self._row

    def _read_config(self, row: RunRow) -> RunRow:
        config = self._run.read_config()
        return replace(row, model=config.model.id, steps=config.run.steps)

    def _read_meta(self, row: RunRow) -> RunRow:
        meta = self._run.read_meta()
        return replace(row, name=str(meta.get("name", self._run.id)), pinned=meta.get("pinned") is True)

    def _read_numbers(self, row: RunRow) -> RunRow:
        self._trend = trend = self._reader.trend("reward", self._trend)
        step, reward = trend.last or (0, None)
        return replace(row, step=step, reward=reward, rewards=tuple(trend.values))

    def _read_status(self, row: RunRow) -> RunRow:
        status = self._run.read_status()
        return replace(row, steps=int(status.get("steps") or row.steps), budget=budget_of(status))


Stamp = tuple[tuple[int, int], ...]


def _stamp(path: Path) -> tuple[int, int]:
    """Return a stamp that changes with the file: (mtime in ns, size); (0, 0) if it is missing or empty.

    Readers of a database may leave an empty file behind, which counts as none.
    """
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return (stat.st_mtime_ns, stat.st_size) if stat.st_size else (0, 0)


def created(run: RunDirectory) -> float:
    """Return the unix time at which the run was created: from its id, else from its configuration file."""
    try:
        return time.mktime(time.strptime(run.id[:15], "%Y%m%d-%H%M%S"))
    except ValueError:
        return _stamp(run.config)[0] / 1e9


@dataclass(frozen=True)
class PresetFit:
    """The fit of a preset in this machine's memory. ``verdict``: fits, tight, too large, no GPU or unknown."""

    verdict: str
    detail: str


@dataclass(frozen=True)
class PresetRow:
    """A preset as Home lists it. ``config`` is None if the preset is invalid; ``error`` then says why.

    ``fit`` is None until it has been judged.
    """

    name: str
    title: str
    notes: list[str]
    config: RunConfig | None
    error: str = ""
    fit: PresetFit | None = None


def read_presets() -> list[PresetRow]:
    """Return all presets, the demo first, then by name."""
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


def judge_presets(rows: Sequence[PresetRow]) -> tuple[list[PresetRow], str]:
    """Return the presets with their fit, and a text with the free memory they were judged by: the GPU's, else the RAM.

    The demo comes first, then the presets that fit, then the tight ones, and so on. Nothing is downloaded, so the size
    of a model that is not on this machine may be unknown.
    """
    from aapo_desk import fit, hardware

    machine = hardware.machine()
    here = fit.room("auto", machine)
    assert here is not None  # every machine has a CPU
    card = here.name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    free = gigabytes(here.free)
    against = f"{card}, {free} free" if here.device == "cuda" else f"no GPU, {free} of RAM free"
    judged = [replace(row, fit=_judged(row.config, machine) if row.config else None) for row in rows]
    return sorted(judged, key=lambda row: (row.name != "demo", _rank(row.fit))), against


def _rank(fit: PresetFit | None) -> int:
    """Return the place of a fit in the list of presets: those that fit come first."""
    order = ("fits", "tight", "unknown", "too large", "no GPU")
    return order.index(fit.verdict) if fit else len(order)


def _judged(config: RunConfig, machine: Machine) -> PresetFit:
    from aapo_desk import fit

    device = config.model.device
    room = fit.room(device, machine)
    missing = room is None
    room = room or fit.room("cpu", machine)
    assert room is not None
    try:
        found = fit.judge(fit.shape_of(config.model), config, room)
    except ValueError as error:
        verdict, detail = "unknown", str(error)
    else:
        verdict = found.verdict
        least, full, free = gigabytes(found.least), gigabytes(found.full), gigabytes(room.free)
        place = "GPU memory" if room.device == "cuda" else "RAM"
        detail = f"{verdict}: needs at least {least}, {full} for full speed; {free} of {place} free"
    if missing:
        in_memory = "" if verdict == "unknown" else f"; in RAM: {detail}"
        return PresetFit("no GPU", f"needs an NVIDIA GPU, and none was found{in_memory}")
    return PresetFit(verdict, detail)


def gigabytes(count: float) -> str:
    """Format bytes in units of 2**30 bytes, labelled GB as the memory of GPUs is."""
    return f"{count / 2**30:.1f} GB"
