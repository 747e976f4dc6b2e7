"""A disk that takes nothing more: whether an error means that, and what to tell about it.

Errors come from the system (``errno``), from SQLite (its own codes) and from safetensors (the system's number in text).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import sqlite3
from pathlib import Path

LITTLE = 1 << 20
"""Bytes that a step's record, an event or the like find room in."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_UNCLEAR = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
"""What SQLite also says of a full disk: where a quota is used up, and where it cannot make the files beside its own."""
_PROBE_BYTES = 1 << 16


def is_full(error: BaseException, folder: Path) -> bool:
    """Whether a write failed for want of room in ``folder``'s file system, or of what the user may have of it."""
    return _number(error, folder) in _FULL


def is_quota(error: BaseException, folder: Path) -> bool:
    """Whether what is used up is not the disk but what the user may have of it."""
    return _number(error, folder) == errno.EDQUOT


def trouble(error: BaseException, folder: Path, needed: int = LITTLE) -> str | None:
    """What keeps ``folder`` from being written and what to do about it, in a line; None where the error is another.

    ``needed``: the bytes that were to be written.
    """
    named = getattr(error, "filename", None)
    path = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else folder
    if not path.is_relative_to(folder):
        return None
    match _number(error, folder):
        case errno.ENOSPC:
            return f"the disk is full: {folder} has {megabytes(free(folder))} free and needs {megabytes(needed)}"
        case errno.EDQUOT:
            return f"the disk is full: your quota for {folder} is used up, and {megabytes(needed)} more are needed"
        case errno.EROFS:
            return f"{path} cannot be written: its disk is read-only; mount it writable, then try again"
        case errno.EACCES | errno.EPERM:
            return f"{path} may not be opened by this user; give it the rights in {folder}, then try again"
    return None


def free(folder: Path) -> int:
    """Bytes that the user has left where ``folder`` lies; 0 where that cannot be told."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MB"


def _number(error: BaseException, folder: Path) -> int | None:
    """The system's number of an error; None where it has none that means a disk that cannot be written."""
    number: int | None = None
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
        if code == sqlite3.SQLITE_FULL or str(error) == "database or disk is full":
            number = errno.ENOSPC
        elif code == sqlite3.SQLITE_READONLY:
            number = _try(folder) or errno.EACCES
        elif code in _UNCLEAR:
            number = _try(folder)
    elif isinstance(error, OSError):
        number = error.errno
    elif said := re.search(r"\(os error (\d+)\)", str(error)):
        number = int(said[1])
    return number if number in _FULL | _REFUSED else None


def _try(folder: Path) -> int | None:
    """The system's number of what goes wrong when something is written into a folder; None where nothing does."""
    path = folder / f".room.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        with path.open("wb") as file:
            file.write(b"\0" * _PROBE_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return None
