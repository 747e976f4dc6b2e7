"""Writing and restoring checkpoints: adapter, optimizer and position, in safetensors and JSON only.

A checkpoint is written into a temporary folder, flushed to the disk, and renamed, so that it is always complete under
its own name. The adapter is in peft's layout, so that other tools can load a checkpoint's ``adapter`` folder directly.

Random states are not saved: everything random in a step, and the position in the data, is derived from the run's seed
and the step's number (``rollout.derive_seed``, ``tasks.order``). The exception is a run with adaptive difficulty, whose
record of the problems is saved.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from aapo_desk.models.finite import broken_tensor
from aapo_desk.models.policy import Policy
from aapo_desk.models.tensors import damage
from aapo_desk.store import flush
from aapo_desk.store.checkpoints import (
    ADAPTER,
    FORMAT,
    Checkpoint,
    CheckpointError,
    checkpoint_name,
    checksum,
    list_checkpoints,
    prune,
    remove,
    seal,
)
from aapo_desk.store.checkpoints import newest_whole as newest_whole_files

__all__ = [
    "ADAPTER",
    "Checkpoint",
    "CheckpointError",
    "checkpoint_name",
    "list_checkpoints",
    "load_adapter",
    "newest_whole",
    "prune",
    "remove",
    "restore",
    "room",
    "save",
]

DESCRIPTION = 1 << 16
"""Approximate bytes of a checkpoint besides its tensors."""
ADAPTER_FILE = "adapter_model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""AdamW's state for each parameter."""
NOT_FINITE = "holds NaN or infinity"


def newest_whole(folder: Path, before: int | None = None) -> tuple[Checkpoint, dict[str, Any], list[str]] | None:
    """Return the newest checkpoint that is complete and contains only finite numbers, of a step before ``before``.

    Returns its state as well, and why each newer one was skipped; None if there are no checkpoints. Raises
    CheckpointError if there are checkpoints but none is usable, StoreError for a newer format.
    """
    return newest_whole_files(folder, before, refuse_broken)


def refuse_broken(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError if a checkpoint contains a non-finite number."""
    for path in (checkpoint.adapter / ADAPTER_FILE, checkpoint.path / OPTIMIZER_FILE):
        if path.is_file() and (name := broken_tensor(_read(path))):
            raise CheckpointError(f"{checkpoint.path}: {name} {NOT_FINITE}")


def save(
    folder: Path,
    step: int,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    choices: dict[str, int],
    loss_scale: dict[str, Any] | None = None,
    difficulty: dict[str, Any] | None = None,
) -> Checkpoint:
    """Write the checkpoint of ``step`` and return it once it is complete on the disk.

    Its state contains, if the run has them, ``loss_scale``, the state of loss scaling in float16, and ``difficulty``,
    the record of the problems' difficulty (``tasks.difficulty``). Raises CheckpointError, before anything is written,
    if a number is not finite.
    """
    adapter, moments = _adapter_tensors(policy), _optimizer_tensors(policy, optimizer)
    if name := broken_tensor(adapter) or broken_tensor(moments):
        raise CheckpointError(f"step {step} was not saved: {name} {NOT_FINITE}, so the adapter would be unusable")
    target = folder / checkpoint_name(step)
    aside = folder / f".{target.name}.{os.getpid()}"
    _remove_leftovers(folder)
    try:
        state: dict[str, Any] = {"step": step, "choices": choices, "loss_scale": loss_scale}
        if difficulty is not None:
            state["difficulty"] = difficulty
        _write(aside, policy, adapter, moments, state)
    except Exception:
        shutil.rmtree(aside, ignore_errors=True)  # A partial checkpoint would only take space on a full disk.
        raise
    if target.exists():  # It is damaged and was skipped when this run was resumed.
        remove(target)
    aside.rename(target)
    flush(folder)
    return Checkpoint(target, step)


def room(policy: Policy) -> int:
    """Return the bytes of a checkpoint: the adapter, twice as much for the optimizer, and the JSON files."""
    tensors = sum(value.numel() * value.element_size() for value in policy.adapter_parameters().values())
    return 3 * tensors + DESCRIPTION


def _write(
    aside: Path, policy: Policy, adapter: dict[str, Tensor], moments: dict[str, Tensor], state: dict[str, Any]
) -> None:
    """Write a checkpoint's files and flush them to the disk."""
    aside.mkdir(mode=0o700)
    (aside / ADAPTER).mkdir(mode=0o700)
    _save_adapter(policy, adapter, aside / ADAPTER)
    save_file(moments, aside / OPTIMIZER_FILE)
    files = [path for path in sorted(aside.rglob("*")) if path.is_file()]
    sums = {str(path.relative_to(aside)): checksum(path) for path in files}
    state = {"format": FORMAT, **state, "checksums": sums}
    state = json.loads(json.dumps(state))  # Seal what a reader will get: JSON turns numeric keys into strings.
    (aside / "state.json").write_text(json.dumps(state | {"seal": seal(state)}, indent=2))
    for path in [*files, aside / "state.json"]:
        path.chmod(0o600)
        flush(path)
    for path in (aside / ADAPTER, aside):
        flush(path)


def restore(
    checkpoint: Checkpoint, state: dict[str, Any], policy: Policy, optimizer: torch.optim.Optimizer
) -> dict[str, int]:
    """Load adapter and optimizer in place and return the recorded execution plan (``choices``)."""
    load_adapter(checkpoint, policy)
    tensors = _read(checkpoint.path / OPTIMIZER_FILE)
    moments = {}
    for place, name in enumerate(policy.adapter_parameters()):
        kept = {key: tensors[f"{name}/{key}"] for key in MOMENTS if f"{name}/{key}" in tensors}
        if kept:
            moments[place] = kept
    # load_state_dict puts each tensor, including the step count, on the device that the optimizer needs it on.
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    choices: dict[str, int] = state["choices"]
    return choices


def load_adapter(checkpoint: Checkpoint, policy: Policy) -> None:
    """Load only the adapter, in place. Raises CheckpointError if it does not fit the model."""
    from peft import set_peft_model_state_dict

    loaded = _read(checkpoint.adapter / ADAPTER_FILE)
    result: Any = set_peft_model_state_dict(policy.model, loaded)
    if result.unexpected_keys:
        raise CheckpointError(f"{checkpoint.path} does not fit this model: {result.unexpected_keys[0]}")


def _read(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{damage(path) or error}; choose another checkpoint") from error
    return tensors


def _adapter_tensors(policy: Policy) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    tensors = get_peft_model_state_dict(policy.model, save_embedding_layers=False)
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _save_adapter(policy: Policy, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
    settings = policy.model.peft_config["default"]
    was_training, settings.inference_mode = settings.inference_mode, True
    try:
        settings.save_pretrained(str(folder))
    finally:
        settings.inference_mode = was_training


def _optimizer_tensors(policy: Policy, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in policy.adapter_parameters().items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _remove_leftovers(folder: Path) -> None:
    """Remove partial checkpoints left by a killed trainer."""
    for path in _leftovers(folder):
        shutil.rmtree(path, ignore_errors=True)


def _leftovers(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.name.startswith(".step_"))
