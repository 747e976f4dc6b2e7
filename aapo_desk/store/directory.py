"""The folder of all runs, and the paths inside one run's folder."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import ValidationError

from aapo_desk import __version__
from aapo_desk.config import ConfigError, Problem, RunConfig, user_path

FORMAT = 1
"""The format of a run directory: its files and the content of the JSON files. The database has its own version.

Run directories that do not record a format have format 1.
"""


class StoreError(RuntimeError):
    """Raised for a run directory that cannot be used; the message says which one, why, and what to do."""


@dataclass(frozen=True)
class RunDirectory:
    """The paths inside one run's folder, and readers for its JSON files."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def plan(self) -> Path:
        """The file with the planned number of steps, written only if it was changed after the run was created."""
        return self.path / "plan.json"

    @property
    def meta(self) -> Path:
        return self.path / "meta.json"

    @property
    def database(self) -> Path:
        return self.path / "run.db"

    @property
    def write_ahead(self) -> Path:
        """SQLite's write-ahead log."""
        return self.path / "run.db-wal"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def commands(self) -> Path:
        return self.path / "commands"

    @property
    def lock(self) -> Path:
        return self.path / "run.lock"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations"

    @property
    def exports(self) -> Path:
        return self.path / "exports"

    @property
    def start_adapter(self) -> Path:
        """The folder of the initial adapter, present only if ``lora.start_from`` is set."""
        return self.path / "start_adapter"

    def read_config(self) -> RunConfig:
        """Return the run's configuration with ``run.steps`` as last planned.

        Raises StoreError if it cannot be read or was written by a newer version.
        """
        self.refuse_newer()
        config = self._read_config()
        steps = self.replanned_steps()
        if steps is None:
            return config
        return config.model_copy(update={"run": config.run.model_copy(update={"steps": steps})})

    def read_settings(self) -> dict[str, Any]:
        """Return the configuration as unvalidated JSON, whatever version wrote it; empty if it cannot be read."""
        settings = read_json(self.config) or {}
        steps = self.replanned_steps()
        if steps is not None and isinstance(settings.get("run"), dict):
            settings["run"]["steps"] = steps
        return settings

    def replanned_steps(self) -> int | None:
        """Return the changed total number of steps; None if it was never changed. config.json itself stays as it is."""
        steps = (read_json(self.plan) or {}).get("steps")
        return steps if isinstance(steps, int) and steps > 0 else None

    def replan(self, steps: int) -> None:
        """Set the total number of steps, which takes effect when the trainer starts next. Raises OSError."""
        write_atomically(self.plan, json.dumps({"steps": steps}))

    def _read_config(self) -> RunConfig:
        try:
            return RunConfig.model_validate_json(self.config.read_bytes())
        except OSError as error:
            raise StoreError(f"{self.config} cannot be read: {error.strerror or error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            writer = self.read_meta().get("version")
            by = f"; aapo-desk {writer} wrote it, this is {__version__}" if writer not in (None, __version__) else ""
            raise StoreError(
                f"{self.config} is not a valid configuration for this version of aapo-desk: {where}: {first['msg']}{by}"
            ) from error

    def read_meta(self) -> dict[str, Any]:
        return read_json(self.meta) or {"name": self.id}

    def refuse_newer(self) -> None:
        """Raise StoreError if the run directory's format is newer than this version supports."""
        form = self.read_meta().get("format", FORMAT)
        if form != FORMAT:
            raise StoreError(newer(self, "run format", form, FORMAT))

    def read_status(self) -> dict[str, Any]:
        """Return the trainer's last status: state, phase, step, steps, heartbeat, ...; empty before the first one."""
        return read_json(self.status) or {}

    @property
    def name(self) -> str:
        return str(self.read_meta().get("name", self.id))


def newer(run: RunDirectory, what: str, found: object, known: int) -> str:
    """Return the error message for ``what`` written by a newer version, in format ``found`` instead of ``known``."""
    return (
        f"run {run.name} was written by a newer aapo-desk ({what} {found}, this version supports {known}); "
        "upgrade aapo-desk to open it"
    )


def home() -> Path:
    """Return ``$AAPO_DESK_HOME``, or the platform's user data folder if that is not set."""
    chosen = os.environ.get("AAPO_DESK_HOME")
    return user_path(chosen) if chosen else platformdirs.user_data_path("aapo-desk")


def runs_folder() -> Path:
    return home() / "runs"


def create_run(
    config: RunConfig, name: str | None = None, fill: Callable[[RunDirectory], None] = lambda _: None
) -> RunDirectory:
    """Create a run's folder, private to the user, with its configuration. Raises ConfigError for an invalid name.

    ``fill`` adds the files that the run starts from. The folder becomes visible as a run only after ``fill`` has
    returned; if anything fails, the folder is removed.
    """
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    check_name(name) if name is not None else None
    run = RunDirectory(runs_folder() / run_id)
    runs_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    run.path.mkdir(mode=0o700)
    run.commands.mkdir(mode=0o700)
    run.checkpoints.mkdir(mode=0o700)
    meta = {"name": name or run_id, "pinned": False, "notes": "", "format": FORMAT, "version": __version__}
    try:
        write_atomically(run.meta, json.dumps(meta))
        fill(run)
        write_atomically(run.config, config.model_dump_json(indent=2))  # Last, since config.json makes it a run.
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    flush(runs_folder())
    return run


def check_name(name: str, renamed: RunDirectory | None = None) -> None:
    """Raise ConfigError if a name is empty, contains a slash, or belongs to a run other than ``renamed``."""
    if not name.strip() or "/" in name or "\\" in name or name in {".", "..", "last"} or not name.isprintable():
        raise ConfigError(Problem("--name", "must be text without slashes, and not 'last'", name))
    if any(name in (run.name, run.id) for run in list_runs() if run != renamed):
        raise ConfigError(Problem("--name", "a run with this name exists; choose another", name))


def rename_run(run: RunDirectory, name: str) -> None:
    """Rename a run. Raises ConfigError for an invalid name, OSError if it cannot be saved."""
    check_name(name, run)
    _change_meta(run, name=name)


def pin_run(run: RunDirectory, pinned: bool) -> None:
    """Pin a run to the top of every list, or unpin it. Raises OSError if that cannot be saved."""
    _change_meta(run, pinned=pinned)


def _change_meta(run: RunDirectory, **changes: Any) -> None:
    write_atomically(run.meta, json.dumps(run.read_meta() | changes))


def list_runs() -> list[RunDirectory]:
    """Return all runs, newest first."""
    folder = runs_folder()
    if not folder.is_dir():
        return []
    runs = [RunDirectory(path) for path in folder.iterdir() if (path / "config.json").is_file()]
    return sorted(runs, key=_age, reverse=True)


def _age(run: RunDirectory) -> tuple[str, int, str]:
    """Return a sort key: the second in the id, then the time when config.json, which never changes, was written."""
    try:
        written = run.config.stat().st_mtime_ns
    except OSError:  # The run is being removed.
        written = 0
    return run.id[: len("YYYYmmdd-HHMMSS")], written, run.id


def find_run(reference: str) -> RunDirectory:
    """Return the run with this id, name or unique prefix of an id; ``last`` means the newest run.

    Raises ConfigError if there is no such run or several match.
    """
    runs = list_runs()
    if not runs:
        raise ConfigError(Problem("RUN", "there are no runs yet; start one with: aapo-desk demo", reference))
    if reference == "last":
        return runs[0]
    exact = [run for run in runs if reference in (run.id, run.name)]
    matches = exact or [run for run in runs if reference and run.id.startswith(reference)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(run.id for run in matches[:5])
        raise ConfigError(Problem("RUN", f"matches several runs: {names}", reference))
    raise ConfigError(Problem("RUN", "there is no such run; list them with: aapo-desk runs", reference))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None if the file is missing, unreadable or no JSON object."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_atomically(path: Path, text: str, durable: bool = True) -> None:
    """Write a file, private to the user, so that a reader sees either the old or the new content, never a part.

    With ``durable``, the file is on the disk when this function returns.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        aside.touch(mode=0o600)
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        flush(path.parent)


def overwrite(path: Path, text: str) -> None:
    """Overwrite a JSON file in place, which needs no space on a full disk. Raises OSError.

    A concurrent reader may see partly written text. If the old text was longer, the rest is filled with spaces.
    """
    data = text.encode()
    with path.open("r+b", buffering=0) as file:
        file.write(data.ljust(os.fstat(file.fileno()).st_size))


def read_command(path: Path) -> str | None:
    """Return the command in a file of the ``commands`` folder; None if it holds none.

    A file written on a full disk has no content; its name ``<uuid>.<command>.json`` then holds the command.
    """
    command = (read_json(path) or {}).get("command") or path.stem.partition(".")[2]
    return str(command) or None


def flush(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk with fsync."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
