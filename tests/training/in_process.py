"""Run the trainer inside the test's process, which saves starting Python and torch."""

from __future__ import annotations

import sys

import pytest

from aapo_desk.store import RunDirectory, RunReader, RunWriter
from aapo_desk.training.control import Control
from aapo_desk.training.distributed.group import ALONE, Ranks
from aapo_desk.training.setup import prepared
from aapo_desk.training.trainer import Trainer

NOBODY = [sys.executable, "-c", ""]
"""A trainer that does nothing, for what starts one."""


class Killed(BaseException):
    """Simulates a trainer that dies in the middle of a step: no code handles it."""


def killed(run: RunDirectory, step: int) -> RunDirectory:
    """Train and die in the update of the given step."""

    class KillingControl(Control):
        def report(self, phase: str, progress: float | None = None, message: str = "") -> None:
            if message == f"step {step}: update":
                raise Killed

    with pytest.raises(Killed):
        train(run, control=KillingControl)
    last = RunReader(run).last_metrics()
    assert last is not None
    assert last[0] == step - 1
    return run


def train(run: RunDirectory, ranks: Ranks = ALONE, control: type[Control] = Control) -> RunDirectory:
    """Train the run as the background process does."""
    store = RunWriter(run)
    settings = run.read_config()
    asked = control(run, settings.run.steps)
    asked.say(state="running")
    try:
        with prepared(settings, store, asked, ranks=ranks) as ready:
            Trainer(run, settings, ready, store, asked).train()
        asked.say(state="finished", step=store.last_step())
    finally:
        store.close()
    return run


def weights(run: RunDirectory, step: int) -> list[bytes]:
    """Return the adapter's weights and its optimiser's state."""
    folder = run.checkpoints / f"step_{step:06d}"
    return [(folder / name).read_bytes() for name in ("adapter/adapter_model.safetensors", "optimizer.safetensors")]
