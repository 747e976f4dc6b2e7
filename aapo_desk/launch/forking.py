"""Forking a run from another run's checkpoint: choosing the checkpoint, validating changes, copying the history."""

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
"""Settings that a fork cannot change, since the checkpoint's weights depend on them or resulted from them."""

KEEP_CHOICES = ("optimizer.", "run.", "rewards")
"""Settings that do not affect the execution plan: a fork that changes only these keeps its parent's plan."""

KEEP_EVALUATIONS = (
    "optimizer.", "algorithm.", "lora.dropout", "evaluation.every", "rollout.prompts_per_step", "rollout.group_size",
    "rollout.weights", "rollout.capture", "run.steps", "run.checkpoint_every", "run.keep_checkpoints",
)  # fmt: skip
"""Settings that do not affect evaluations: a fork that changes only these keeps its parent's evaluations."""


def kept_checkpoint(parent: RunDirectory, step: int | None) -> Checkpoint:
    """Return the checkpoint of this step, by default the newest one, after verifying that it is complete.

    Raises ConfigError if there is no such checkpoint, LaunchError if it is damaged.
    """
    kept = list_checkpoints(parent.checkpoints)
    if not kept:
        message = "has no checkpoint yet, so it cannot be forked"
        raise ConfigError(Problem("RUN", message, parent.name))
    chosen = kept[0] if step is None else next((one for one in kept if one.step == step), None)
    if chosen is None:
        steps = ", ".join(str(one.step) for one in reversed(kept))
        raise ConfigError(Problem("--step", f"run {parent.name} has no checkpoint of this step; it has: {steps}", step))
    try:
        chosen.read_asked_state()
    except CheckpointError as error:
        raise LaunchError(f"the checkpoint cannot be used: {error}") from error
    return chosen


def forked_config(parent: RunDirectory, step: int, changes: Mapping[str, Any]) -> RunConfig:
    """Return the parent's configuration with ``changes``, by dotted path. Raises ConfigError for invalid changes."""
    before = parent.read_config()
    config = resolve(before.model_dump(mode="json"), changes)
    changed = differences(before, config)
    problems = [
        Problem(
            path,
            f"must stay {changed[path][0]} in a fork, since the checkpoint's adapter depends on it; the same holds for "
            f"{_and(FIXED, path)}; every other setting may change",
            changed[path][1],
            "--set",
        )
        for path in FIXED
        if path in changed
    ]
    if config.run.steps <= step:
        message = f"the checkpoint is of step {step}, so no step would be left; raise it with --set run.steps=N"
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
    """Create a run that continues from a checkpoint, with the parent's history up to it, and start its trainer.

    Raises as ``start``, StoreError if the history cannot be read, and LaunchError if the checkpoint is gone.
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
            # A parent that is still training may have removed this checkpoint.
            raise LaunchError(f"the checkpoint {checkpoint.path} cannot be copied: {error}") from error
        if parent.start_adapter.is_dir():
            shutil.copytree(parent.start_adapter, run.start_adapter)
        copy_history(parent, run, checkpoint.step, event, choices, evaluations)

    return start(config, name, command, fill)


def _shown(value: Any) -> Any:
    """Return a setting's value as JSON data."""
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value
