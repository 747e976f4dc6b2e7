"""Recognising write errors caused by a full, read-only or forbidden disk, and describing them to the user.

Errors come from the system (``errno``), from SQLite (its own codes) and from safetensors (the errno as text).
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
"""Bytes that are enough for a small write, such as a step's record or an event."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_UNCLEAR = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
"""Codes that SQLite also reports for a full disk: for a used-up quota, or if it cannot create its auxiliary files."""
_PROBE_BYTES = 1 << 16


def is_full(error: BaseException, folder: Path) -> bool:
    """Return whether a write failed because ``folder``'s file system is full or the user's quota is used up."""
    return _number(error, folder) in _FULL


def is_quota(error: BaseException, folder: Path) -> bool:
    """Return whether a write failed because the user's quota, and not the disk itself, is used up."""
    return _number(error, folder) == errno.EDQUOT


def trouble(error: BaseException, folder: Path, needed: int = LITTLE) -> str | None:
    """Return, in one line, why ``folder`` cannot be written and what to do; None for any other kind of error.

    ``needed`` is the number of bytes that were to be written.
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
            return f"permission denied for {path}; give this user write permission in {folder}, then try again"
    return None


def free(folder: Path) -> int:
    """Return the bytes available to the user in ``folder``'s file system; 0 if that cannot be determined."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MB"


def _number(error: BaseException, folder: Path) -> int | None:
    """Return an error's errno if it means that the disk cannot be written; otherwise None."""
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
    elif match := re.search(r"\(os error (\d+)\)", str(error)):
        number = int(match[1])
    return number if number in _FULL | _REFUSED else None


def _try(folder: Path) -> int | None:
    """Write a test file into a folder and return the errno if that fails, otherwise None."""
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
