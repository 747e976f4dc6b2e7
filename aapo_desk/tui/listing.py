"""What Home lists: the runs there are, and the presets to start one from. Read in threads.

``launch`` and ``presets`` are imported where they are used: the first frame does not wait for them.
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
    """A run as Home lists it. ``rewards``: over its steps, evenly thinned; None where there was none."""

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
        """By how much the reward's mean of the last quarter lies above that of the first; None below four values."""
        known = [value for value in self.rewards if value is not None]
        quarter = len(known) // 4
        return (sum(known[-quarter:]) - sum(known[:quarter])) / quarter if quarter else None


class RunList:
    """Reads all runs for Home: of each only what has changed since the last time."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def read(self) -> list[RunRow]:
        """The runs, newest first. A run that cannot be read is listed with what can be said of it."""
        from aapo_desk import launch

        runs = list_runs()
        self._known = {run.id: self._known.get(run.id) or _Known(run) for run in runs}
        return [self._known[run.id].row(launch.state(run)) for run in runs]


class _Known:
    """What is known of one run, each part with the stamp of the file it was read from."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._reader = RunReader(run)
        self._stamps: dict[str, Stamp] = {}
        self._trend = Trend()
        self._row = RunRow(run, run.id, "", "?", 0, 0, None, created(run))

    def row(self, state: str) -> RunRow:
        """The run as it is now; the same object as before where nothing has changed."""
        new = self._row
        for part, files, read in (
            ("config", (self._run.config, self._run.plan), self._read_config),
            ("meta", (self._run.meta,), self._read_meta),
            ("numbers", (self._run.database, self._run.write_ahead), self._read_numbers),
            ("status", (self._run.status,), self._read_status),
        ):
            stamp = tuple(_stamp(file) for file in files)  # before the reading: what comes meanwhile is read again
            if stamp != self._stamps.get(part):
                try:
                    new = read(new)
                    self._stamps[part] = stamp
                except READ_ERRORS:
                    pass  # its own screen tells why
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
    """Changes with the file. A file that is empty, as readers may leave one, is as good as none."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return (stat.st_mtime_ns, stat.st_size) if stat.st_size else (0, 0)


def created(run: RunDirectory) -> float:
    """When the run was made, from its id; where that tells nothing, from its configuration file."""
    try:
        return time.mktime(time.strptime(run.id[:15], "%Y%m%d-%H%M%S"))
    except ValueError:
        return _stamp(run.config)[0] / 1e9


@dataclass(frozen=True)
class PresetFit:
    """Whether a preset fits into this machine's memory. ``verdict``: fits, tight, too large, no GPU or unknown."""

    verdict: str
    detail: str


@dataclass(frozen=True)
class PresetRow:
    """A preset as Home offers it. ``config`` is None where ``error`` says what is wrong with it.

    ``fit`` is None until it has been looked at.
    """

    name: str
    title: str
    notes: list[str]
    config: RunConfig | None
    error: str = ""
    fit: PresetFit | None = None


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


def judge_presets(rows: Sequence[PresetRow]) -> tuple[list[PresetRow], str]:
    """The presets with how they fit, and what they were held against: the free memory of the card, or of the machine.

    The demo first, then those that fit, and so on. Nothing is fetched: of a model that is not on this machine, the size
    may be unknown.
    """
    from aapo_desk import fit, hardware

    machine = hardware.machine()
    here = fit.room("auto", machine)
    assert here is not None  # there is always a processor
    card = here.name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    free = gigabytes(here.free)
    against = f"{card}, {free} free" if here.device == "cuda" else f"no GPU, {free} of RAM free"
    judged = [replace(row, fit=_judged(row.config, machine) if row.config else None) for row in rows]
    return sorted(judged, key=lambda row: (row.name != "demo", _rank(row.fit))), against


def _rank(fit: PresetFit | None) -> int:
    """Of a preset in the list, by how it fits."""
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
        detail = f"{verdict}: {least} at the least, {full} for full speed; {free} of {place} free"
    if missing:
        in_memory = "" if verdict == "unknown" else f"; in RAM: {detail}"
        return PresetFit("no GPU", f"it wants an NVIDIA GPU, and this machine shows none{in_memory}")
    return PresetFit(verdict, detail)


def gigabytes(count: float) -> str:
    """Bytes in GB, as cards are sold."""
    return f"{count / 2**30:.1f} GB"
