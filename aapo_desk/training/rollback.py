"""After numbers that are not finite: the step is left out; three in a row go back to where all was well, once.

A step that is left out changes neither adapter nor optimiser, so a checkpoint written between two of them is whole. The
run goes back behind all of them nevertheless, to the newest checkpoint from before the first, and on from there at half
the learning rate. Where what is not finite is the adapter itself or the optimiser's moments, leaving out steps does not
help, and it goes back at once. The second time it fails, and says so.

What was done is a fact of the run's database, written before it is done: a run that is killed meanwhile does it again.
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
"""Of the learning rate, once the run has gone back."""
KEY = "recovery"
"""The fact of a run: from which step it went back to which, at what part of the learning rate, and whether that is
still to be finished."""


class NumbersError(RuntimeError):
    """The run's numbers are not finite, and going back has not helped."""


class Recovery:
    """Watches over the numbers of one run, and puts its context where they were."""

    def __init__(self, run: RunDirectory, context: TrainContext, store: RunWriter) -> None:
        self._run = run
        self._context = context
        self._store = store
        self._left_out: list[int] = []
        """The last steps, where they were left out."""
        self._start: dict[str, torch.Tensor] | None = None
        """The adapter that the run began with, on the CPU, as long as there is no checkpoint to go back to."""
        self._done: dict[str, Any] | None = store.recall(KEY)

    def newest(self) -> tuple[Checkpoint, dict[str, Any], list[str]] | None:
        """The checkpoint that the run goes on from, as ``checkpoint.newest_whole`` gives it."""
        return checkpoints.newest_whole(self._run.checkpoints, self._unfinished["to"] + 1 if self._unfinished else None)

    def place(self, checkpoint: Checkpoint, state: dict[str, Any]) -> None:
        """Put adapter, optimiser, loss scale and difficulty where they were at a checkpoint."""
        context = self._context
        context.optimizer.state.clear()
        checkpoints.restore(checkpoint, state, context.policy, context.optimizer)
        if context.scale and state.get("loss_scale"):  # none where the run computed in another dtype until now
            context.scale.restore(state["loss_scale"])
        if context.difficulty is not None:
            even = checkpoint.step * context.config.rollout.prompts_per_step
            context.difficulty.restore(state.get("difficulty"), even)

    def resume(self, step: int) -> None:
        """Take up what the record holds, once it is rewound to ``step``."""
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
        """Steps of checkpoints that must not be removed: that which the run may go back to, unless it is the newest."""
        if not self._left_out:
            self._start = None  # what was just saved stands for it
            return set()
        steps = [one.step for one in checkpoints.list_checkpoints(self._run.checkpoints)]
        return set([step for step in steps if step < self._left_out[0]][:1])

    def judge(self, step: int, broken: NonFinite | None) -> int | None:
        """Look at what a finished step's numbers were. Gives the step that the run has gone back to, or None.

        Raises NumbersError where it has gone back before, and where there is nothing to go back to.
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
            raise NumbersError(f"{self._explanation(step, broken)}; there is no checkpoint from before")
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
        """The adapter that the run began with, and nothing of what has been learned since."""
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
        """Remove the checkpoints behind the step that the run has gone back to, and put on record that this is done."""
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
            f"; the run had gone back from step {self._done['from']} to step {self._done['to']} and on at "
            f"{self._done['factor']:g} of the learning rate before"
            if self._done
            else ""
        )
        count = len(self._left_out)
        steps = f"the last {count} steps (to {step}) were" if count > 1 else f"step {step} was"
        return (
            f"{steps} not finite, at last {broken}{before}. What is saved is whole. Fork the run or start anew with a "
            f"lower optimizer.learning_rate ({config.optimizer.learning_rate:g}) or optimizer.max_grad_norm "
            f"({config.optimizer.max_grad_norm:g}){dtype}"
        )
