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
"""Of an entry's file. A file of another one is left alone."""

WAITING = frozenset({"waiting", "interrupted"})
"""States of entries that a supervisor would start, or go on with."""

ENDED = frozenset({"finished", "failed", "stopped", "removed"})
"""States of entries that nothing more is done with."""


@dataclass(frozen=True)
class Entry:
    """A run that is, or was, to be trained in its turn.

    ``state`` is waiting, interrupted (it goes on from its last checkpoint), removed (its run was deleted), failed (also
    where it could not be started, or crashed twice without getting further), or that of its run: starting, running,
    paused, stopping, finished, stopped.
    """

    id: str
    """A number of four digits, given in the order of adding."""

    name: str | None
    """The run's, as train's ``--name``."""

    config: dict[str, Any]
    """The resolved RunConfig as JSON."""

    preset: str
    """The preset or file it came from, for people."""

    study: str | None
    """The id of the study that wants it."""

    added: float
    """Unix time."""

    run: str | None
    """The run's id, once it has been started."""

    state: str
    reason: str
    """Of a failure, in one line; else empty."""

    @property
    def label(self) -> str:
        """What to call it in a line: its name, else where it came from."""
        return self.name or self.preset


@dataclass(frozen=True)
class Record:
    """An entry as its file holds it."""

    id: str
    name: str | None
    config: dict[str, Any]
    preset: str
    study: str | None
    added: float
    run: str | None = None
    begun: bool = False
    """Whether its trainer was started. ``run`` is written before, so that no kill can make a run start twice."""

    settled: bool = False
    """Whether a supervisor has seen how it ended."""

    failure: str = ""
    """Why it could not be started, or was given up."""

    crashed_at: int | None = None
    """The furthest step that it crashed after."""

    @property
    def directory(self) -> RunDirectory | None:
        """Its run; None where there is none (yet)."""
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
    """Where the queue lies."""
    return home() / "queue"


@contextmanager
def changing() -> Iterator[Path]:
    """Hold the queue, so that of those who change it each sees what the one before left; gives its folder.

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
    """Put a run at the end of the queue. ``preset``: what it came from, for people.

    The configuration is kept so that it can be started from any working directory. Raises ConfigError for a name that a
    run or a waiting entry has, or an adapter to start from that is none; OSError where it cannot be written.
    """
    if adapter := launch.find_start(config):
        config = config.model_copy(update={"lora": config.lora.model_copy(update={"start_from": str(adapter)})})
    config = launch.with_absolute_paths(config)
    with changing() as place:
        known = records()
        if name is not None:
            check_name(name)
            if any(record.name == name for record in known if record.run is None and not record.settled):
                raise ConfigError(Problem("--name", "an entry of this name waits in the queue; choose another", name))
        record = Record(_next_number(place), name, config.model_dump(mode="json"), preset, study, time.time())
        write(record)
    return record.entry()


def _next_number(place: Path) -> str:
    """One more than was ever given: the number of a removed entry does not come back for another one."""
    last = place / "last"
    try:
        given = int(last.read_text())
    except (OSError, ValueError):
        given = 0
    number = max([given, *(int(path.stem) for path in _files())]) + 1
    write_atomically(last, str(number), durable=False)
    return f"{number:04d}"


def entries(study: str | None = None) -> list[Entry]:
    """All entries, or those of a study, in the order of adding. What cannot be read is left out: see ``unreadable``."""
    return [record.entry() for record in records(study)]


def find_entry(reference: str) -> Entry:
    """The entry with this number (leading zeros or not), name or run. Raises ConfigError."""
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
        raise ConfigError(Problem("ENTRY", f"several entries are meant by it: {several}", reference))
    raise ConfigError(Problem("ENTRY", "there is no such entry; see: aapo-desk queue list", reference))


def remove(reference: str) -> Entry:
    """Take an entry off the queue, which it gives; its run, where there is one, stays.

    Raises ConfigError where there is no such entry, LaunchError while its run lives.
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
    """What there is to say of files in the queue that are no entries for this version, a line each."""
    return [words for path in _files() if isinstance(words := _read(path), str)]


def records(study: str | None = None) -> list[Record]:
    """As ``entries``, as the files hold them."""
    found = [record for path in _files() if isinstance(record := _read(path), Record)]
    return [record for record in found if study is None or record.study == study]


def write(record: Record) -> None:
    """Raises OSError."""
    write_atomically(folder() / f"{record.id}.json", json.dumps({"format": FORMAT} | asdict(record)))


def change(record: Record, **changes: Any) -> Record:
    """Write a record's changes down."""
    changed = replace(record, **changes)
    write(changed)
    return changed


def again(record: Record) -> Record | None:
    """The record as its file holds it now; None where it was removed."""
    found = _read(folder() / f"{record.id}.json")
    return found if isinstance(found, Record) else None


def _files() -> list[Path]:
    place = folder()
    return sorted((path for path in place.glob("*.json") if path.stem.isdecimal()), key=lambda path: int(path.stem))


KINDS: dict[str, tuple[type, ...]] = {
    "id": (str,), "name": (str, type(None)), "config": (dict,), "preset": (str,), "study": (str, type(None)),
    "added": (float, int), "run": (str, type(None)), "begun": (bool,), "settled": (bool,), "failure": (str,),
    "crashed_at": (int, type(None)),
}  # fmt: skip


def _read(path: Path) -> Record | str:
    """An entry's file, or why it is none."""
    data = read_json(path)
    if data is None:
        return f"{path} is no entry of the queue: not a JSON object"
    form = data.get("format")
    if form != FORMAT:
        return f"{path} is of another version of aapo-desk (entry format {form}, this one knows {FORMAT})"
    given = {field.name: data[field.name] for field in fields(Record) if field.name in data}
    wrong = [name for name, value in given.items() if not isinstance(value, KINDS[name])]
    missing = [name for name in ("id", "name", "config", "preset", "study", "added") if name not in given]
    if wrong or missing or given["id"] != path.stem:
        what = ", ".join(wrong or missing or ["id"])
        return f"{path} is no entry of the queue: {what} is missing or wrong"
    return Record(**given)
