"""Load a run's base model with the adapter of one of its checkpoints, and find the run's own problems."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

import torch

from aapo_desk import tasks
from aapo_desk.checkpoint import Checkpoint, CheckpointError, checkpoint_name, load_adapter
from aapo_desk.config import ConfigError, RunConfig
from aapo_desk.export import Source
from aapo_desk.hub import HubError
from aapo_desk.models import sources
from aapo_desk.models.loading import load_policy
from aapo_desk.models.policy import Policy
from aapo_desk.store import RunDirectory, RunReader, StoreError
from aapo_desk.tasks import Problem

Tell = Callable[[str], None]

MOST_PROBLEMS = 100
"""The maximum number of the run's own problems to offer."""


@dataclass(frozen=True)
class OwnProblems:
    """Problems of the run; ``note`` says where they come from if they are not the held-out ones, or why there are
    none."""

    problems: list[Problem]
    note: str = ""


def load(source: Source, tell: Tell) -> Policy:
    """Load the policy as trained up to this checkpoint, on a device that this machine has.

    Raises ModelError, ConfigError and CheckpointError.
    """
    checkpoint = Checkpoint(source.run.checkpoints / checkpoint_name(source.step), source.step)
    state = checkpoint.read_asked_state()
    config = source.config
    # A run that was trained on a GPU can also be loaded on a machine without one.
    model = config.model.model_copy(update={"device": "cpu" if config.model.device == "cpu" else "auto"})
    sources.check_id(model)
    resolved = sources.resolve(model, lambda text, _share=None, /: tell(text))
    tell(f"loading {model.id.partition('#')[0].rpartition('/')[2]}")
    policy = load_policy(model, config.lora, resolved, config.run.seed)
    try:
        load_adapter(checkpoint, policy)
    except RuntimeError as error:  # raised by torch for other shapes; CheckpointError is one too
        first = str(error).splitlines()[0]
        raise CheckpointError(f"the adapter of {source.name} does not fit this model: {first}") from error
    policy.masks_rows = bool(state.get("choices", {}).get("row_mask", 1))
    # No dequantized weights: for two rows they save about a tenth of the time, and making them takes as long as loading
    # the model.
    return policy


def own_problems(run: RunDirectory, config: RunConfig) -> OwnProblems:
    """Return the held-out problems, which the run never trained on; if it has none, those of its last steps."""
    try:
        held_out = tasks.load(config.task, config.run.seed).held_out
        if held_out:
            return OwnProblems(held_out[: config.evaluated_problems or MOST_PROBLEMS][:MOST_PROBLEMS])
        why = "this run has no held-out problems"
    except (ConfigError, HubError, OSError) as error:
        why = f"its data cannot be read ({str(error).splitlines()[0]})"
    trained = _sampled(run)
    return OwnProblems(trained, f"{why}; these were trained on" if trained else why)


def _sampled(run: RunDirectory) -> list[Problem]:
    """Return the problems of the last steps, from the completions that the run stored; empty if they cannot be read."""
    found: dict[str, Problem] = {}
    try:
        reader = RunReader(run)
        span = reader.span()
        first, last = span or (1, 0)
        for step in range(last, max(first, last - MOST_PROBLEMS) - 1, -1):
            for sample in reader.samples(step):
                found.setdefault(sample.prompt, Problem(sample.prompt_id, sample.prompt, sample.answer))
            if len(found) >= MOST_PROBLEMS:
                break
    except (sqlite3.Error, StoreError, OSError):
        return []
    return list(found.values())[:MOST_PROBLEMS]


def device_name(policy: Policy) -> str:
    """Return ``CPU``, or the GPU's name."""
    return "CPU" if policy.device.type == "cpu" else str(torch.cuda.get_device_name(policy.device))
