"""unsloth, where ``model.backend`` asks for it: whether it is there, and how it is brought into a process.

It changes classes of torch, transformers, peft and trl while it is imported, so it comes before them. Where it then
turns out not to work, these stay changed: the process has to start over without it. Nothing heavy is imported here but
unsloth.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import platformdirs
from packaging.version import Version

log = logging.getLogger(__name__)

INSTALL = "pip install 'aapo-desk[unsloth]'"
LEAST = "2026.10.9"
"""The first version that does without a GPU."""


class UnslothError(RuntimeError):
    """unsloth cannot be used. The message goes on behind its name: "is not installed ...".

    ``imported``: something of it is in this process by now.
    """

    def __init__(self, message: str, imported: bool) -> None:
        super().__init__(message)
        self.imported = imported


def installed() -> bool:
    return importlib.util.find_spec("unsloth") is not None


def bring_in(device: str) -> str:
    """Import unsloth for ``model.device`` and give its version. Before transformers is. Raises UnslothError."""
    if not installed():
        raise UnslothError(f"is not installed ({INSTALL})", imported=False)
    for name, value in variables(device).items():
        os.environ.setdefault(name, value)
    try:
        with muted():
            importlib.import_module("unsloth").FastLanguageModel  # noqa: B018 - older ones fail only here
    except (Exception, SystemExit) as error:  # whatever a library raises that is not made for this machine
        version = _version()
        old = version and Version(version) < Version(LEAST)
        newer = f" (needed is {LEAST} or newer: {INSTALL})" if old else ""
        raise UnslothError(
            f"{version} does not work here: {first_line(error)}{newer}".lstrip(), imported=True
        ) from error
    return _version()


def variables(device: str) -> dict[str, str]:
    """What unsloth is to find in the environment when it is imported."""
    found = {
        "UNSLOTH_DISABLE_STATISTICS": "1",  # else it fetches a file from the hub, to be counted
        # What it compiles and generates; else that lands in the working folder.
        "UNSLOTH_COMPILE_LOCATION": str(folder() / "compiled"),
        "UNSLOTH_MEGA_CACHE_DIR": str(folder() / "bundles"),
    }
    return found | ({"UNSLOTH_FORCE_CPU": "1"} if device == "cpu" else {})


def folder() -> Path:
    """Its place in the user's cache."""
    return platformdirs.user_cache_path("aapo-desk") / "unsloth"


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Inside, what it prints is kept from standard output, which may be a channel, and from the run's log."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            yield
        finally:
            for line in filter(str.strip, said.getvalue().splitlines()):
                log.debug("unsloth: %s", line)


def first_line(error: BaseException) -> str:
    """What it raised, on one line."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _version() -> str:
    try:
        return metadata.version("unsloth")
    except metadata.PackageNotFoundError:  # a copy that was not installed
        return ""
