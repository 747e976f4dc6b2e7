"""Where runs live, and the places inside one run's folder."""

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
"""Of a run directory: which files there are and what the JSON among them holds. The database has a version of its own.

Run directories from before it was written down are of format 1.
"""


class StoreError(RuntimeError):
    """A run directory that cannot be used; the message says which, why and what to do."""


@dataclass(frozen=True)
class RunDirectory:
    """The places inside one run's folder."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def plan(self) -> Path:
        """How many steps the run is to take, where it was told so after its configuration was written."""
        return self.path / "plan.json"

    @property
    def meta(self) -> Path:
        return self.path / "meta.json"

    @property
    def database(self) -> Path:
        return self.path / "run.db"

    @property
    def write_ahead(self) -> Path:
        """What SQLite keeps beside the database until it is put into it."""
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
        """The adapter that the run began with, where it was given one (``lora.start_from``)."""
        return self.path / "start_adapter"

    def read_config(self) -> RunConfig:
        """The run's configuration, ``run.steps`` as last planned. Raises StoreError where it cannot be
        read, or a newer version wrote it.
        """
        self.refuse_newer()
        config = self._read_config()
        steps = self.replanned_steps()
        if steps is None:
            return config
        return config.model_copy(update={"run": config.run.model_copy(update={"steps": steps})})

    def read_settings(self) -> dict[str, Any]:
        """The same as it lies there, not checked, also of another version; empty where it cannot be read."""
        settings = read_json(self.config) or {}
        steps = self.replanned_steps()
        if steps is not None and isinstance(settings.get("run"), dict):
            settings["run"]["steps"] = steps
        return settings

    def replanned_steps(self) -> int | None:
        """The steps that the run is to take in all, where that was changed; config.json itself never changes."""
        steps = (read_json(self.plan) or {}).get("steps")
        return steps if isinstance(steps, int) and steps > 0 else None

    def replan(self, steps: int) -> None:
        """Let the run take so many steps in all, from its trainer's next start on. Raises OSError."""
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
                f"{self.config} is not a configuration of this version of aapo-desk: {where}: {first['msg']}{by}"
            ) from error

    def read_meta(self) -> dict[str, Any]:
        return read_json(self.meta) or {"name": self.id}

    def refuse_newer(self) -> None:
        """Raises StoreError for a run directory of a newer format than this version knows."""
        form = self.read_meta().get("format", FORMAT)
        if form != FORMAT:
            raise StoreError(newer(self, "run format", form, FORMAT))

    def read_status(self) -> dict[str, Any]:
        """The trainer's last word of itself: state, phase, step, steps, heartbeat, ... Empty before its first."""
        return read_json(self.status) or {}

    @property
    def name(self) -> str:
        return str(self.read_meta().get("name", self.id))


def newer(run: RunDirectory, what: str, found: object, known: int) -> str:
    """The refusal of ``what`` a newer version wrote, in the format ``found``."""
    return (
        f"run {run.name} was written by a newer aapo-desk ({what} {found}, this one knows {known}); "
        "upgrade aapo-desk to open it"
    )


def home() -> Path:
    """``$AAPO_DESK_HOME``, or the platform's user data folder."""
    chosen = os.environ.get("AAPO_DESK_HOME")
    return user_path(chosen) if chosen else platformdirs.user_data_path("aapo-desk")


def runs_folder() -> Path:
    return home() / "runs"


def create_run(
    config: RunConfig, name: str | None = None, fill: Callable[[RunDirectory], None] = lambda _: None
) -> RunDirectory:
    """A new run's folder with its configuration, private to the user. Raises ConfigError for a bad name.

    ``fill`` puts in what the run begins with. It is a run for everyone once that has been done, whole or not at all.
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
        write_atomically(run.config, config.model_dump_json(indent=2))  # the last: with it the folder is a run
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    flush(runs_folder())
    return run


def check_name(name: str, renamed: RunDirectory | None = None) -> None:
    """Raises ConfigError for a name that is empty, holds a slash or is taken by a run other than ``renamed``."""
    if not name.strip() or "/" in name or "\\" in name or name in {".", "..", "last"} or not name.isprintable():
        raise ConfigError(Problem("--name", "must be text without slashes, and not 'last'", name))
    if any(name in (run.name, run.id) for run in list_runs() if run != renamed):
        raise ConfigError(Problem("--name", "a run of this name exists; choose another", name))


def rename_run(run: RunDirectory, name: str) -> None:
    """Give a run another name. Raises ConfigError for a bad name, OSError where it cannot be written."""
    check_name(name, run)
    _change_meta(run, name=name)


def pin_run(run: RunDirectory, pinned: bool) -> None:
    """Pin a run to the top of every list, or let it go. Raises OSError where it cannot be written."""
    _change_meta(run, pinned=pinned)


def _change_meta(run: RunDirectory, **changes: Any) -> None:
    write_atomically(run.meta, json.dumps(run.read_meta() | changes))


def list_runs() -> list[RunDirectory]:
    """All runs, the newest first."""
    folder = runs_folder()
    if not folder.is_dir():
        return []
    runs = [RunDirectory(path) for path in folder.iterdir() if (path / "config.json").is_file()]
    return sorted(runs, key=_age, reverse=True)


def _age(run: RunDirectory) -> tuple[str, int, str]:
    """Sorts runs by their second, and inside it by when their configuration, which never changes, was written."""
    try:
        written = run.config.stat().st_mtime_ns
    except OSError:  # removed in this moment
        written = 0
    return run.id[: len("YYYYmmdd-HHMMSS")], written, run.id


def find_run(reference: str) -> RunDirectory:
    """The run with this id, name or unique beginning of an id; ``last`` is the newest. Raises ConfigError."""
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
        raise ConfigError(Problem("RUN", f"several runs begin like this: {names}", reference))
    raise ConfigError(Problem("RUN", "there is no such run; see: aapo-desk runs", reference))


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object written by ``write_atomically``; None where there is none (yet)."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_atomically(path: Path, text: str, durable: bool = True) -> None:
    """Write a file, private to the user, so that a reader sees the old or the new one, never a part.

    ``durable``: it is on the disk when this comes back.
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
    """Put JSON into a file where it lies, which takes no room on a full disk. Raises OSError.

    A reader in that moment may see a part. What is left of longer text is blanked out.
    """
    data = text.encode()
    with path.open("r+b", buffering=0) as file:
        file.write(data.ljust(os.fstat(file.fileno()).st_size))


def read_command(path: Path) -> str | None:
    """What a file in ``commands`` asks for; None where it asks for nothing.

    Where there was no room for its text, its name tells: ``<uuid>.<command>.json``.
    """
    command = (read_json(path) or {}).get("command") or path.stem.partition(".")[2]
    return str(command) or None


def flush(path: Path) -> None:
    """Have the kernel put a file, or a folder's entries, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
