"""The trainer's work inside a test's process, which spares it a start of Python and of torch."""

from __future__ import annotations

import sys

from aapo_desk.store import RunDirectory, RunWriter
from aapo_desk.training.control import Control
from aapo_desk.training.loop import Trainer
from aapo_desk.training.ranks import ALONE, Ranks
from aapo_desk.training.setup import prepared

NOBODY = [sys.executable, "-c", ""]
"""A trainer that does nothing, for what starts one."""


def train(run: RunDirectory, ranks: Ranks = ALONE) -> RunDirectory:
    """What the background process does."""
    store = RunWriter(run)
    settings = run.read_config()
    control = Control(run, settings.run.steps)
    control.say(state="running")
    try:
        with prepared(settings, store, control, ranks=ranks) as ready:
            Trainer(run, settings, ready, store, control).train()
        control.say(state="finished", step=store.last_step())
    finally:
        store.close()
    return run


def weights(run: RunDirectory, step: int) -> list[bytes]:
    """Of the adapter and of its optimiser."""
    folder = run.checkpoints / f"step_{step:06d}"
    return [(folder / name).read_bytes() for name in ("adapter/adapter_model.safetensors", "optimizer.safetensors")]
