"""The checkpoints in a run's folder as anyone may read them: which there are, whether they are whole.

What is in them, and how they are written, is ``aapo_desk.checkpoint``'s.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aapo_desk.store.directory import RunDirectory, StoreError, newer, read_json

FORMAT = 1
ADAPTER = "adapter"
_NAME = re.compile(r"step_(\d{6,})")


class CheckpointError(RuntimeError):
    """A checkpoint that is not whole or does not fit; the message says which and why."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint's folder. ``state`` holds its step, the learning rate's position and the choices made."""

    path: Path
    step: int

    @property
    def adapter(self) -> Path:
        return self.path / ADAPTER

    def read_state(self) -> dict[str, Any]:
        """Raises CheckpointError where a file is missing or not what was written, StoreError for a newer format."""
        state = read_json(self.path / "state.json")
        if state is None or not isinstance(form := state.get("format"), int):
            raise CheckpointError(f"{self.path} has no readable state.json")
        if form > FORMAT:  # not damaged: to go back to an older one would lose what a newer version learned
            raise StoreError(newer(RunDirectory(self.path.parent.parent), f"{self.path.name}: format", form, FORMAT))
        checksums = state.get("checksums")
        if state.get("seal", seal(state)) != seal(state) or not isinstance(checksums, dict):
            raise CheckpointError(f"{self.path}: state.json is damaged (its checksum is wrong)")
        for name, recorded in checksums.items():
            file = self.path / name
            if not file.is_file() or checksum(file) != recorded:
                found = f"its checksum is wrong; {file.stat().st_size} bytes" if file.is_file() else "no such file"
                raise CheckpointError(f"{self.path}: {name} is missing or damaged ({found})")
        return state

    def read_asked_state(self) -> dict[str, Any]:
        """As ``read_state``, of a checkpoint that somebody asked for: told which others there are, where it is bad."""
        try:
            return self.read_state()
        except CheckpointError as error:
            others = [str(one.step) for one in list_checkpoints(self.path.parent) if one.step != self.step]
            hint = f"; other checkpoints: --step {', '.join(others)}" if others else ""
            raise CheckpointError(f"{error}{hint}") from error


def seal(state: dict[str, Any]) -> str:
    """The SHA-256 of a state, which stands in it as ``seal``; checkpoints of older versions have none."""
    text = json.dumps({key: value for key, value in state.items() if key != "seal"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def checkpoint_name(step: int) -> str:
    return f"step_{step:06d}"


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """The checkpoints in a run's folder, the newest first. What is half written does not count."""
    if not folder.is_dir():
        return []
    found = [Checkpoint(path, int(match[1])) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(found, key=lambda checkpoint: checkpoint.step, reverse=True)


def newest_whole(
    folder: Path, before: int | None = None, look: Callable[[Checkpoint], None] = lambda _: None
) -> tuple[Checkpoint, dict[str, Any], list[str]] | None:
    """The newest checkpoint that is whole, its state, and why newer ones were passed over. Raises as ``read_state``.

    ``before``: only those of earlier steps count. ``look`` may find more, and then raises CheckpointError.
    """
    refused: list[str] = []
    for checkpoint in list_checkpoints(folder):
        if before is not None and checkpoint.step >= before:
            continue
        try:
            state = checkpoint.read_state()
            look(checkpoint)
            return checkpoint, state, refused
        except CheckpointError as error:
            refused.append(str(error))
    if refused:
        raise CheckpointError(f"no checkpoint can be used: {'; '.join(refused)}")
    return None


def prune(folder: Path, keep: int, always: set[int]) -> None:
    """Remove all but the newest ``keep`` checkpoints and those of the steps in ``always``."""
    for checkpoint in list_checkpoints(folder)[keep:]:
        if checkpoint.step not in always:
            remove(checkpoint.path)


def remove(path: Path) -> None:
    """Remove a checkpoint; no part of it is ever there under its name."""
    leaving = path.with_name(f".{path.name}.gone")
    path.rename(leaving)
    shutil.rmtree(leaving)


def checksum(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
