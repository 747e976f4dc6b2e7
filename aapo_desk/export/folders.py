"""The folder of an export: written under a temporary name, flushed, renamed, and checked by checksums.

A folder with the final name is complete and verified. An export that failed its checks is kept as ``NAME.broken``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aapo_desk.config import Problem
from aapo_desk.store import read_json

RECORD = "export.json"
"""The record of an export: the checksums of its files and the results of its verification."""
FORMAT = 1
Files = dict[str, dict[str, Any]]


def check_target(to: Path, force: bool) -> Problem | None:
    """Return why an export cannot be written to ``to``, or None if it can."""
    if not to.name:
        return Problem("--to", "must be a new folder for the export", str(to))
    if not to.exists() and not to.is_symlink():
        parent = next(folder for folder in to.absolute().parents if folder.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            return Problem("--to", f"{parent} is not a writable folder", str(to))
        return None
    if not to.is_dir() or to.is_symlink():
        return Problem("--to", "is a file or a link; name a folder that does not exist yet", str(to))
    if not any(to.iterdir()):
        return None
    if not (to / RECORD).is_file():
        return Problem("--to", "contains files that are not an export; name a folder that does not exist yet", str(to))
    return None if force else Problem("--to", "contains an export; use --force to replace it", str(to))


@dataclass(frozen=True)
class Places:
    """The temporary folders of an export, for its files and for scratch data. Both are next to the target folder."""

    aside: Path
    scratch: Path


@contextmanager
def written_aside(to: Path) -> Iterator[Places]:
    """Create the temporary folders. Afterwards remove them, unless ``keep`` or ``keep_broken`` renamed the export."""
    to.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(to)
    places = Places(*(to.with_name(f".{to.name}.{kind}-{os.getpid()}") for kind in ("export", "scratch")))
    try:
        places.aside.mkdir()
        places.scratch.mkdir()
        yield places
    finally:
        shutil.rmtree(places.aside, ignore_errors=True)
        shutil.rmtree(places.scratch, ignore_errors=True)


def _remove_leftovers(to: Path) -> None:
    """Remove what earlier exports to the same folder left behind when they were killed."""
    for kind in ("export", "scratch"):
        prefix = f".{to.name}.{kind}-"
        for path in to.parent.iterdir():
            number = path.name.removeprefix(prefix)
            if path.name.startswith(prefix) and number.isdecimal() and not Path("/proc", number).exists():
                shutil.rmtree(path, ignore_errors=True)


def keep(places: Places, to: Path) -> None:
    """Flush the files to the disk and rename the folder to ``to``. An older export there is replaced."""
    for path in [*places.aside.rglob("*"), places.aside]:
        _flush(path)
    if to.exists():
        to.rename(places.scratch / "replaced")
    places.aside.rename(to)
    _flush(to.parent)


def keep_broken(places: Places, to: Path) -> Path:
    """Rename the folder to ``NAME.broken`` and return its path. An older folder of that name is removed."""
    broken = to.with_name(f"{to.name}.broken")
    shutil.rmtree(broken, ignore_errors=True)
    places.aside.rename(broken)
    return broken


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe_files(folder: Path) -> Files:
    """Return the files of the folder, except its record, with their sizes and SHA-256."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != RECORD]
    return {str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files}


def damaged_files(folder: Path, files: Files) -> list[str]:
    """Return in words which files are missing or differ from what was written."""
    found = []
    for name, known in files.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif path.stat().st_size != known["bytes"]:
            found.append(f"{name} has {path.stat().st_size} bytes, not {known['bytes']}")
        elif sha256(path) != known["sha256"]:
            found.append(f"{name} is damaged: its checksum differs from that of the verified file")
    return found


def check_folder(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return an export's record, and what is wrong with the export: files missing or changed since it was verified.

    Raises ValueError if the folder is not an export.
    """
    record = read_json(folder / RECORD)
    if record is None:
        raise ValueError(f"has no readable {RECORD}, so it is not an export of this program")
    if record.get("format") != FORMAT or not isinstance(record.get("files"), dict):
        raise ValueError(f"its {RECORD} was written by another version of this program")
    problems = [f"it was already broken when it was made: {reason}" for reason in record.get("broken", [])]
    return record, problems + damaged_files(folder, record["files"])


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk of a folder, or of its nearest existing parent."""
    return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
