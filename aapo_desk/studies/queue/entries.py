"""The queue's entries: one JSON file each, private to the user, written atomically."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from aapo_desk import launch
from aapo_desk.config import ConfigError, Problem, RunConfig
from aapo_desk.store import RunDirectory, check_name, home, read_json, runs_folder, write_atomically

FORMAT = 1
"""The format of an entry's file. Files of another format are ignored."""

WAITING = frozenset({"waiting", "interrupted"})
"""States of entries that a supervisor will start or resume."""

ENDED = frozenset({"finished", "failed", "stopped", "removed"})
"""States of entries that a supervisor leaves alone."""


@dataclass(frozen=True)
class Entry:
    """A run in the queue, before, during or after its training.

    ``state`` is waiting, interrupted (it will continue from its last checkpoint), removed (its run was deleted), failed
    (also if it could not be started, or crashed twice without progress), or the state of its run: starting, running,
    paused, stopping, finished, stopped.
    """

    id: str
    """A number of four digits, assigned in the order of adding."""

    name: str | None
    """The run's name, as set by the option ``--name`` of train."""

    config: dict[str, Any]
    """The resolved RunConfig as JSON."""

    preset: str
    """The preset or file that the configuration came from, for display."""

    study: str | None
    """The id of the study that the run belongs to."""

    added: float
    """When it was added, as Unix time."""

    run: str | None
    """The run's id, once it has been started."""

    state: str
    reason: str
    """The reason of a failure in one line; otherwise empty."""

    @property
    def label(self) -> str:
        """The entry's name, or else its preset."""
        return self.name or self.preset


@dataclass(frozen=True)
class Record:
    """An entry as stored in its file."""

    id: str
    name: str | None
    config: dict[str, Any]
    preset: str
    study: str | None
    added: float
    run: str | None = None
    begun: bool = False
    """True if its trainer was started. ``run`` is stored earlier, so that a kill can never make a run start twice."""

    settled: bool = False
    """True if a supervisor has recorded its end."""

    failure: str = ""
    """Why it could not be started, or was given up."""

    crashed_at: int | None = None
    """The last step before its latest crash; None if it never crashed."""

    @property
    def directory(self) -> RunDirectory | None:
        """The entry's run; None if it does not exist (yet)."""
        run = RunDirectory(runs_folder() / self.run) if self.run else None
        return run if run and run.config.is_file() else None

    def entry(self) -> Entry:
        state, reason = self._state()
        return Entry(
            self.id, self.name, self.config, self.preset, self.study, self.added, self.run, state, reason
        )  # fmt: skip

    def _state(self) -> tuple[str, str]:
        run = self.directory
        if run is None:
            if self.begun:
                return "removed", "its run was removed"
            return ("failed", self.failure) if self.settled else ("waiting", "")
        current = launch.state(run)
        if current in ("stopped", "crashed") and not self.settled:
            return "interrupted", ""
        if current in ("failed", "crashed"):
            return "failed", self.failure or launch.reason(run) or ""
        return current, ""


def folder() -> Path:
    """Return the folder of the queue."""
    return home() / "queue"


@contextmanager
def changing() -> Iterator[Path]:
    """Lock the queue, so that changes by several processes happen one after another, and yield its folder.

    Raises OSError.
    """
    place = folder()
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = place / "queue.lock"
    lock.touch(mode=0o600)
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield place


def add(config: RunConfig, *, preset: str, name: str | None = None, study: str | None = None) -> Entry:
    """Add a run to the end of the queue. ``preset`` is the source of the configuration, for display.

    Paths in the configuration are made absolute, so that the run can be started from any working directory.
    Raises ConfigError for a name that belongs to a run or a waiting entry, or for an invalid initial adapter; OSError
    if the entry cannot be written.
    """
    if adapter := launch.find_start(config):
        config = config.model_copy(update={"lora": config.lora.model_copy(update={"start_from": str(adapter)})})
    config = launch.with_absolute_paths(config)
    with changing() as place:
        known = records()
        if name is not None:
            check_name(name)
            if any(record.name == name for record in known if record.run is None and not record.settled):
                message = "an entry with this name is waiting in the queue; choose another"
                raise ConfigError(Problem("--name", message, name))
        record = Record(_next_number(place), name, config.model_dump(mode="json"), preset, study, time.time())
        write(record)
    return record.entry()


def _next_number(place: Path) -> str:
    """Return the next unused number. Numbers of removed entries are not used again."""
    last = place / "last"
    try:
        given = int(last.read_text())
    except (OSError, ValueError):
        given = 0
    number = max([given, *(int(path.stem) for path in _files())]) + 1
    write_atomically(last, str(number), durable=False)
    return f"{number:04d}"


def entries(study: str | None = None) -> list[Entry]:
    """Return all entries, or a study's, in the order of adding, without unreadable files (see ``unreadable``)."""
    return [record.entry() for record in records(study)]


def find_entry(reference: str) -> Entry:
    """Return the entry with this number (leading zeros are optional), name or run id. Raises ConfigError."""
    return _find(reference).entry()


def _find(reference: str) -> Record:
    known = records()
    number = f"{int(reference):04d}" if reference.isascii() and reference.isdecimal() else reference
    by_number = [record for record in known if record.id == number]
    matches = by_number or [record for record in known if reference in (record.name, record.run)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        several = ", ".join(record.id for record in matches[:5])
        raise ConfigError(Problem("ENTRY", f"matches several entries: {several}", reference))
    raise ConfigError(Problem("ENTRY", "there is no such entry; list them with: aapo-desk queue list", reference))


def remove(reference: str) -> Entry:
    """Remove an entry from the queue and return it; its run, if there is one, stays.

    Raises ConfigError if there is no such entry, LaunchError while its run is live.
    """
    with changing() as place:
        record = _find(reference)
        entry = record.entry()
        if entry.state in launch.LIVE:
            raise launch.LaunchError(
                f"entry {entry.id} is {entry.state}; stop its run first with: aapo-desk stop {entry.run}"
            )
        (place / f"{record.id}.json").unlink(missing_ok=True)
    return entry


def unreadable() -> list[str]:
    """Return one line for each file in the queue that is not a valid entry for this version."""
    return [words for path in _files() if isinstance(words := _read(path), str)]


def records(study: str | None = None) -> list[Record]:
    """Return the records that ``entries`` is made from, in the same order."""
    readable = [record for path in _files() if isinstance(record := _read(path), Record)]
    return [record for record in readable if study is None or record.study == study]


def write(record: Record) -> None:
    """Write a record to its file. Raises OSError."""
    write_atomically(folder() / f"{record.id}.json", json.dumps({"format": FORMAT} | asdict(record)))


def change(record: Record, **changes: Any) -> Record:
    """Write a changed record to its file and return it."""
    changed = replace(record, **changes)
    write(changed)
    return changed


def again(record: Record) -> Record | None:
    """Read a record from its file again; None if it was removed."""
    current = _read(folder() / f"{record.id}.json")
    return current if isinstance(current, Record) else None


def _files() -> list[Path]:
    place = folder()
    return sorted((path for path in place.glob("*.json") if path.stem.isdecimal()), key=lambda path: int(path.stem))


KINDS: dict[str, tuple[type, ...]] = {
    "id": (str,), "name": (str, type(None)), "config": (dict,), "preset": (str,), "study": (str, type(None)),
    "added": (float, int), "run": (str, type(None)), "begun": (bool,), "settled": (bool,), "failure": (str,),
    "crashed_at": (int, type(None)),
}  # fmt: skip


def _read(path: Path) -> Record | str:
    """Return the record in an entry's file, or a message why it is not valid."""
    data = read_json(path)
    if data is None:
        return f"{path} is not a queue entry: it is not a JSON object"
    form = data.get("format")
    if form != FORMAT:
        return (
            f"{path} was written by another version of aapo-desk (entry format {form}, this version supports {FORMAT})"
        )
    given = {field.name: data[field.name] for field in fields(Record) if field.name in data}
    wrong = [name for name, value in given.items() if not isinstance(value, KINDS[name])]
    missing = [name for name in ("id", "name", "config", "preset", "study", "added") if name not in given]
    if wrong or missing or given["id"] != path.stem:
        what = ", ".join(wrong or missing or ["id"])
        return f"{path} is not a valid queue entry: {what} is missing or wrong"
    return Record(**given)
