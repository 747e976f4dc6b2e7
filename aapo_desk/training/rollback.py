"""Recovery from non-finite numbers: the step is skipped, and three in a row cause a rollback, once per run.

A skipped step changes neither adapter nor optimiser, so a checkpoint written between two skipped steps is intact. The
rollback nevertheless restores the newest checkpoint from before the first of them and continues from there at half the
learning rate. If the adapter itself or the optimiser's moments are not finite, skipping steps does not help, and the
rollback happens at once. If it would be needed a second time, the run fails with an explanation.

The rollback is recorded in the run's database before it is carried out: a run that is killed during it repeats it.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from aapo_desk import checkpoint as checkpoints
from aapo_desk.checkpoint import Checkpoint
from aapo_desk.store import RunDirectory, RunWriter, event_words
from aapo_desk.training.context import TrainContext
from aapo_desk.training.loss_scaling import LossScale
from aapo_desk.training.metrics import NOT_FINITE
from aapo_desk.training.nonfinite import NonFinite

log = logging.getLogger(__name__)

IN_A_ROW = 3
FACTOR = 0.5
"""The learning rate after a rollback, as a share of the configured one."""
KEY = "recovery"
"""The database key of the rollback's record: the steps it went from and to, the learning rate's factor, and whether it
is still unfinished."""


class NumbersError(RuntimeError):
    """The run's numbers are not finite, and a rollback has not helped or is not possible."""


class Recovery:
    """Checks that one run's numbers are finite, and restores its context from a checkpoint."""

    def __init__(self, run: RunDirectory, context: TrainContext, store: RunWriter) -> None:
        self._run = run
        self._context = context
        self._store = store
        self._left_out: list[int] = []
        """The latest steps in a row that were skipped; empty if the last step was not."""
        self._start: dict[str, torch.Tensor] | None = None
        """The adapter that the run began with, on the CPU; kept as long as there is no checkpoint to roll back to."""
        self._done: dict[str, Any] | None = store.recall(KEY)

    def newest(self) -> tuple[Checkpoint, dict[str, Any], list[str]] | None:
        """Return the checkpoint to resume from, as ``checkpoint.newest_whole`` does."""
        return checkpoints.newest_whole(self._run.checkpoints, self._unfinished["to"] + 1 if self._unfinished else None)

    def place(self, checkpoint: Checkpoint, state: dict[str, Any]) -> None:
        """Restore adapter, optimiser, loss scale and difficulty from a checkpoint."""
        context = self._context
        context.optimizer.state.clear()
        checkpoints.restore(checkpoint, state, context.policy, context.optimizer)
        if context.scale and state.get("loss_scale"):  # absent if the run has computed in another dtype until now
            context.scale.restore(state["loss_scale"])
        if context.difficulty is not None:
            even = checkpoint.step * context.config.rollout.prompts_per_step
            context.difficulty.restore(state.get("difficulty"), even)

    def resume(self, step: int) -> None:
        """Load the state from the run's record, after that has been rewound to ``step``."""
        if self._unfinished:
            self._forget(step)
        if self._done:
            self._context.rate_factor = self._done["factor"]
        first = self._done["to"] if self._done else 0
        for number, metrics in self._store.metrics(0, IN_A_ROW):
            self._left_out = [*self._left_out, number] if metrics.get(NOT_FINITE) and number > first else []
        if (self._left_out[0] - 1 if self._left_out else step) == 0:
            adapter = self._context.policy.adapter_parameters()
            self._start = {name: value.detach().to("cpu", copy=True) for name, value in adapter.items()}

    def after_save(self) -> set[int]:
        """Return the steps of checkpoints to keep: the one a rollback would restore, if newer ones were saved since."""
        if not self._left_out:
            self._start = None  # the checkpoint that was just saved takes its place
            return set()
        steps = [one.step for one in checkpoints.list_checkpoints(self._run.checkpoints)]
        return set([step for step in steps if step < self._left_out[0]][:1])

    def judge(self, step: int, broken: NonFinite | None) -> int | None:
        """Record a finished step's non-finite number and roll back if necessary.

        Returns the step that the run was rolled back to, or None. Raises NumbersError if the run has been rolled back
        before, or if there is nothing to roll back to.
        """
        if broken is None:
            self._left_out = []
            return None
        self._left_out.append(step)
        data = {"what": broken.what, "where": broken.where, "in_a_row": len(self._left_out)}
        log.warning(event_words("not_finite", data))
        self._store.write_event("not_finite", step, **data)
        if len(self._left_out) < IN_A_ROW and not broken.is_kept:
            return None
        if self._done:
            raise NumbersError(self._explanation(step, broken))
        return self._go_back(step, broken)

    def _go_back(self, step: int, broken: NonFinite) -> int:
        found = checkpoints.newest_whole(self._run.checkpoints, before=self._left_out[0])
        if found is None and self._start is None:
            raise NumbersError(f"{self._explanation(step, broken)}; there is no earlier checkpoint to go back to")
        to = found[0].step if found else 0
        self._done = {"from": step, "to": to, "factor": FACTOR, "unfinished": True}
        self._store.remember(KEY, self._done)
        if found:
            self.place(*found[:2])
        else:
            self._begin_anew()
        self._context.optimizer.zero_grad(set_to_none=False)
        self._context.rate_factor = FACTOR
        self._store.rewind(to)
        data = {"from_step": step, "to_step": to, "factor": FACTOR, "steps": len(self._left_out), "what": broken.what}
        log.warning(event_words("went_back", data))
        self._store.write_event("went_back", to, **data)
        self._left_out = []
        self._forget(to)
        return to

    def _begin_anew(self) -> None:
        """Restore the adapter that the run began with, and reset the optimiser, loss scale and difficulty."""
        assert self._start is not None
        context = self._context
        with torch.no_grad():
            for name, value in context.policy.adapter_parameters().items():
                value.copy_(self._start[name])
        context.optimizer.state.clear()
        if context.scale:
            context.scale = LossScale()
        if context.difficulty is not None:
            context.difficulty.restore(None, 0)

    @property
    def _unfinished(self) -> dict[str, Any] | None:
        return self._done if self._done and self._done["unfinished"] else None

    def _forget(self, step: int) -> None:
        """Remove the checkpoints after ``step``, the one rolled back to, and record that the rollback is finished."""
        for one in checkpoints.list_checkpoints(self._run.checkpoints):
            if one.step > step:
                checkpoints.remove(one.path)
        assert self._done is not None
        self._done = self._done | {"unfinished": False}
        self._store.remember(KEY, self._done)

    def _explanation(self, step: int, broken: NonFinite) -> str:
        config = self._context.config
        exact = self._context.policy.computes_exactly
        dtype = "" if exact else ", compute in another dtype (model.compute_dtype=float32 is the safest)"
        before = (
            f"; the run had already gone back from step {self._done['from']} to step {self._done['to']} and continued "
            f"at {self._done['factor']:g} of the learning rate"
            if self._done
            else ""
        )
        count = len(self._left_out)
        steps = f"the last {count} steps (to {step}) were" if count > 1 else f"step {step} was"
        return (
            f"{steps} not finite, most recently {broken}{before}. The saved checkpoints are intact. Fork the run or "
            f"start a new one with a lower optimizer.learning_rate ({config.optimizer.learning_rate:g}) or "
            f"optimizer.max_grad_norm ({config.optimizer.max_grad_norm:g}){dtype}"
        )
