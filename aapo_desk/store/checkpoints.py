"""Listing the checkpoints in a run's folder and verifying that they are complete, without torch.

``aapo_desk.checkpoint`` defines their content and writes them.
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
    """Raised for a checkpoint that is incomplete or does not fit the run; the message says which one and why."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint's folder. Its state.json holds the step, the position in the schedule and the execution plan."""

    path: Path
    step: int

    @property
    def adapter(self) -> Path:
        return self.path / ADAPTER

    def read_state(self) -> dict[str, Any]:
        """Return the content of state.json after verifying every file's checksum.

        Raises CheckpointError if a file is missing or differs from what was written, StoreError for a newer format.
        """
        state = read_json(self.path / "state.json")
        if state is None or not isinstance(form := state.get("format"), int):
            raise CheckpointError(f"{self.path} has no readable state.json")
        # A newer format is not damage: falling back to an older checkpoint would lose what the newer version trained.
        if form > FORMAT:
            raise StoreError(newer(RunDirectory(self.path.parent.parent), f"{self.path.name}: format", form, FORMAT))
        checksums = state.get("checksums")
        if state.get("seal", seal(state)) != seal(state) or not isinstance(checksums, dict):
            raise CheckpointError(f"{self.path}: state.json is damaged (its checksum is wrong)")
        for name, recorded in checksums.items():
            file = self.path / name
            if not file.is_file() or checksum(file) != recorded:
                cause = f"its checksum is wrong; {file.stat().st_size} bytes" if file.is_file() else "no such file"
                raise CheckpointError(f"{self.path}: {name} is missing or damaged ({cause})")
        return state

    def read_asked_state(self) -> dict[str, Any]:
        """Return the state of a checkpoint that the user chose; an error also lists the run's other checkpoints.

        Raises as ``read_state``.
        """
        try:
            return self.read_state()
        except CheckpointError as error:
            others = [str(one.step) for one in list_checkpoints(self.path.parent) if one.step != self.step]
            hint = f"; other checkpoints: --step {', '.join(others)}" if others else ""
            raise CheckpointError(f"{error}{hint}") from error


def seal(state: dict[str, Any]) -> str:
    """Return the SHA-256 of a state without its key ``seal``, under which it is stored; older checkpoints have none."""
    text = json.dumps({key: value for key, value in state.items() if key != "seal"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def checkpoint_name(step: int) -> str:
    return f"step_{step:06d}"


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints in a run's folder, newest first, without those that are only partly written."""
    if not folder.is_dir():
        return []
    named = [Checkpoint(path, int(match[1])) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(named, key=lambda checkpoint: checkpoint.step, reverse=True)


def newest_whole(
    folder: Path, before: int | None = None, look: Callable[[Checkpoint], None] = lambda _: None
) -> tuple[Checkpoint, dict[str, Any], list[str]] | None:
    """Return the newest complete checkpoint, its state, and why each newer one was skipped; None if there is none.

    Args:
        folder: The run's folder of checkpoints.
        before: Consider only checkpoints of earlier steps than this one.
        look: An additional check, which rejects a checkpoint by raising CheckpointError.

    Raises CheckpointError if there are checkpoints but none is usable, StoreError for a newer format.
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
    """Remove a checkpoint. It is renamed first, so that a reader never sees part of it under its own name."""
    leaving = path.with_name(f".{path.name}.gone")
    path.rename(leaving)
    shutil.rmtree(leaving)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
