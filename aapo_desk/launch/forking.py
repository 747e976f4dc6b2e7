"""A new run from a checkpoint of another one: which checkpoint, which settings may differ, what is taken along."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from aapo_desk.config import ConfigError, Problem, RunConfig, differences, resolve
from aapo_desk.launch.errors import LaunchError
from aapo_desk.launch.trainer import start
from aapo_desk.store import Checkpoint, CheckpointError, RunDirectory, copy_history, list_checkpoints

FIXED = (
    "model.id", "model.revision", "model.quantization", "lora.r", "lora.alpha", "lora.targets", "lora.start_from",
    "warm_start.solutions", "warm_start.epochs", "warm_start.learning_rate", "warm_start.template",
)  # fmt: skip
"""What the checkpoint's weights mean something for, or came of."""

KEEP_CHOICES = ("optimizer.", "run.", "rewards")
"""Settings that what was chosen for the device does not follow from: with these a fork computes as its parent did."""

KEEP_EVALUATIONS = (
    "optimizer.", "algorithm.", "lora.dropout", "evaluation.every", "rollout.prompts_per_step", "rollout.group_size",
    "rollout.weights", "rollout.capture", "run.steps", "run.checkpoint_every", "run.keep_checkpoints",
)  # fmt: skip
"""Settings that what is asked in an evaluation, and how it is judged, do not follow from."""


def kept_checkpoint(parent: RunDirectory, step: int | None) -> Checkpoint:
    """The checkpoint of this step, by default the newest, once it has been found whole.

    Raises ConfigError where there is none, LaunchError where it is damaged.
    """
    kept = list_checkpoints(parent.checkpoints)
    if not kept:
        message = "has no checkpoint yet, so there is nothing to go on from"
        raise ConfigError(Problem("RUN", message, parent.name))
    found = kept[0] if step is None else next((one for one in kept if one.step == step), None)
    if found is None:
        steps = ", ".join(str(one.step) for one in reversed(kept))
        raise ConfigError(Problem("--step", f"run {parent.name} keeps no such checkpoint; it has: {steps}", step))
    try:
        found.read_asked_state()
    except CheckpointError as error:
        raise LaunchError(f"the checkpoint cannot be used: {error}") from error
    return found


def forked_config(parent: RunDirectory, step: int, changes: Mapping[str, Any]) -> RunConfig:
    """The parent's configuration with ``changes`` by dotted path. Raises ConfigError for what cannot be."""
    before = parent.read_config()
    config = resolve(before.model_dump(mode="json"), changes)
    changed = differences(before, config)
    problems = [
        Problem(
            path,
            f"stays {changed[path][0]} in a fork: the checkpoint's adapter belongs to it, as to {_and(FIXED, path)}; "
            "every other setting may change",
            changed[path][1],
            "--set",
        )
        for path in FIXED
        if path in changed
    ]
    if config.run.steps <= step:
        message = f"the checkpoint is that of step {step}, so no step would be left; more with --set run.steps=N"
        problems.append(Problem("run.steps", message, config.run.steps, "--set" if "run.steps" in changed else ""))
    if problems:
        raise ConfigError(*problems)
    return config


def _and(paths: Sequence[str], without: str) -> str:
    return ", ".join(path for path in paths if path != without)


def fork(
    parent: RunDirectory,
    checkpoint: Checkpoint,
    config: RunConfig,
    name: str | None = None,
    command: Sequence[str] = (),
) -> RunDirectory:
    """A new run that goes on from a checkpoint, with the parent's history up to it, and its trainer.

    Raises as ``start``, StoreError where the history cannot be read, and LaunchError where the checkpoint is gone.
    """
    changed = differences(parent.read_config(), config)
    evaluations = all(path.startswith(KEEP_EVALUATIONS) for path in changed)
    event = {
        "id": parent.id,
        "name": parent.name,
        "step": checkpoint.step,
        "changed": {path: [_shown(old), _shown(new)] for path, (old, new) in changed.items()},
        "evaluations": evaluations,
    }
    choices = all(path.startswith(KEEP_CHOICES) for path in changed)

    def fill(run: RunDirectory) -> None:
        try:
            shutil.copytree(checkpoint.path, run.checkpoints / checkpoint.path.name)
        except (OSError, shutil.Error) as error:
            # A parent that trains on lets go of old ones.
            raise LaunchError(f"the checkpoint {checkpoint.path} cannot be copied: {error}") from error
        if parent.start_adapter.is_dir():
            shutil.copytree(parent.start_adapter, run.start_adapter)
        copy_history(parent, run, checkpoint.step, event, choices, evaluations)

    return start(config, name, command, fill)


def _shown(value: Any) -> Any:
    """A setting's value as JSON."""
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value
