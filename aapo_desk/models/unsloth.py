"""Import unsloth if ``model.backend`` asks for it, and check whether it is installed.

unsloth changes classes of torch, transformers, peft and trl while it is imported, so it has to be imported before them.
If it then turns out not to work, these classes stay changed, and the process has to be restarted without unsloth. This
module imports nothing heavy except unsloth.
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
"""The first version that works without a GPU."""


class UnslothError(RuntimeError):
    """unsloth cannot be used. The message continues a sentence that begins with its name: "is not installed ...".

    ``imported`` is True if parts of unsloth may have been imported into this process.
    """

    def __init__(self, message: str, imported: bool) -> None:
        super().__init__(message)
        self.imported = imported


def installed() -> bool:
    return importlib.util.find_spec("unsloth") is not None


def bring_in(device: str) -> str:
    """Import unsloth for ``model.device`` and return its version. Call this before transformers is imported.

    Raises UnslothError if it is not installed or does not work on this machine.
    """
    if not installed():
        raise UnslothError(f"is not installed ({INSTALL})", imported=False)
    for name, value in variables(device).items():
        os.environ.setdefault(name, value)
    try:
        with muted():
            importlib.import_module("unsloth").FastLanguageModel  # noqa: B018 - older versions fail only here
    except (Exception, SystemExit) as error:  # a library that does not support this machine may raise anything
        version = _version()
        old = version and Version(version) < Version(LEAST)
        newer = f" (version {LEAST} or newer is needed: {INSTALL})" if old else ""
        raise UnslothError(
            f"{version} does not work here: {first_line(error)}{newer}".lstrip(), imported=True
        ) from error
    return _version()


def variables(device: str) -> dict[str, str]:
    """Return the environment variables that unsloth reads when it is imported."""
    found = {
        "UNSLOTH_DISABLE_STATISTICS": "1",  # else it fetches a file from the hub to count its users
        # The folder for its compiled and generated files; by default they are written to the working folder.
        "UNSLOTH_COMPILE_LOCATION": str(folder() / "compiled"),
        "UNSLOTH_MEGA_CACHE_DIR": str(folder() / "bundles"),
    }
    return found | ({"UNSLOTH_FORCE_CPU": "1"} if device == "cpu" else {})


def folder() -> Path:
    """Return unsloth's folder in the user's cache."""
    return platformdirs.user_cache_path("aapo-desk") / "unsloth"


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Redirect what unsloth prints inside this context to debug messages.

    Standard output may be a channel to another process, and the run's log is not to be filled.
    """
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            yield
        finally:
            for line in filter(str.strip, said.getvalue().splitlines()):
                log.debug("unsloth: %s", line)


def first_line(error: BaseException) -> str:
    """Return an error's type and the first line of its message."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _version() -> str:
    try:
        return metadata.version("unsloth")
    except metadata.PackageNotFoundError:  # it can be imported, but was not installed as a package
        return ""
