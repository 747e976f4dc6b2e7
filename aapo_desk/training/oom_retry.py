"""Recovery from out of memory during a run: the phase is repeated with half as much at once, and the run continues.

Smaller batches split the sums over rows but leave nothing out, and the random numbers of a row depend on that row
alone. So a repeated phase gives what it would have given the first time, except for the last bits of floating-point
sums.

Because of these bits, and so that a resumed run equals an uninterrupted one, smaller choices are recorded for good only
together with a checkpoint after the step that needed them: a run never resumes from before that step with them.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from aapo_desk.models.room import ran_out
from aapo_desk.rollout import CaptureError
from aapo_desk.store import RunWriter, event_words
from aapo_desk.training.device.allocator import MemoryGoneError, give_back
from aapo_desk.training.device.execution_plan import apply
from aapo_desk.training.device.memory_probe import NOT_CAPTURED, Longest, Phase, Sizes, less

if TYPE_CHECKING:
    from aapo_desk.training.context import TrainContext

log = logging.getLogger(__name__)

Result = TypeVar("Result")

CHOICES, HALVED = "choices", "halved"
"""Database keys: the choices that a run computes with, and those that apply from a given step's checkpoint on."""

LOWER = {
    "update": "rollout.max_new_tokens ({new}), task.max_prompt_tokens ({prompt}) or lora.r ({r})",
    "rollout": "rollout.max_new_tokens ({new}) or task.max_prompt_tokens ({prompt})",
    "reference": "rollout.max_new_tokens ({new}) or task.max_prompt_tokens ({prompt})",
    "evaluation": "evaluation.max_new_tokens ({evaluated}) or task.max_prompt_tokens ({prompt})",
    "optimizer": "lora.r ({r}), or fewer lora.targets",
}


class OomRetry:
    """Runs the phases of a run's steps, repeating one that runs out of memory. ``step`` is the current, for events."""

    def __init__(self, context: TrainContext, store: RunWriter) -> None:
        self._context = context
        self._store = store
        self._changed = False
        self.step = 0

    def run(self, phase: Phase, rows: int, compute: Callable[[], Result]) -> Result:
        """Return what ``compute`` returns, repeating it if memory runs out or the decode step cannot be captured.

        It is repeated with the same random numbers: after out of memory with smaller choices, after a failed capture
        without CUDA graphs. ``compute`` must read the context's choices on each call and leave nothing half done if it
        fails; ``rows`` is the number of rows that the phase decodes in all. Raises MemoryGoneError if nothing can be
        made smaller.
        """
        device = self._context.policy.device
        while True:
            random = _random_state(device)
            uncaptured: str | None = None
            try:
                return compute()
            except CaptureError as error:
                if not self._context.choices["fixed_steps"]:
                    raise  # the capture ignores the choices, so repeating it would never end
                uncaptured = str(error)
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                log.info("memory ran out in the %s: %s", phase, next(iter(str(error).splitlines()), ""))
            # Outside the except block the exception is freed, and with it the frames that held the tensors.
            gc.collect()
            if uncaptured is not None:
                self._stop_capturing(uncaptured)
            else:
                self._make_smaller(phase, rows)
            give_back(device)
            _set_random_state(device, random)

    def settle(self, step: int, save: Callable[[], None]) -> None:
        """Record changed choices as valid after ``step``; ``save`` writes its checkpoint if there is none yet."""
        if not self._changed:
            return
        self._store.remember(HALVED, {"step": step, "choices": self._context.choices})
        save()
        self._store.remember(CHOICES, self._context.choices)
        self._changed = False

    def resume(self, step: int) -> None:
        """Finish recording changed choices if the run was interrupted during it; ``step`` is the checkpoint's."""
        halved: dict[str, Any] | None = self._store.recall(HALVED)
        if halved and halved["step"] <= step and self._store.recall(CHOICES) != halved["choices"]:
            self._use(halved["choices"])
            self._store.remember(CHOICES, self._context.choices)

    def _make_smaller(self, phase: Phase, rows: int) -> None:
        context = self._context
        before = dict(context.choices)
        found = less(phase, context.config, before, self._sizes(phase, rows))
        if found is None:
            raise MemoryGoneError(_advice(phase, self.step, context))
        choices, said = found
        self._use(choices)
        self._changed = True
        changed = [key for key in choices if choices[key] != before[key]]
        data = {
            "phase": phase,
            "before": {key: before[key] for key in changed},
            "after": {key: choices[key] for key in changed},
            "smaller": said,
        }
        log.warning(event_words("oom", data))
        self._store.write_event("oom", self.step, **data)

    def _stop_capturing(self, reason: str) -> None:
        """Decode without CUDA graphs from now on, and report the reason once."""
        message = NOT_CAPTURED.format(reason=reason)
        self._use(self._context.choices | {"fixed_steps": 0})
        self._changed = True
        log.warning(message)
        self._store.write_event("notice", self.step, message=message)

    def _sizes(self, phase: Phase, rows: int) -> Sizes:
        context = self._context
        rows = min(rows, context.choices["batch_rows"])
        if phase != "update":
            return Sizes(0, 0, rows)
        return Longest.of(context.policy, context.config, context.prompts, context.choices).sizes(context.config)

    def _use(self, choices: dict[str, int]) -> None:
        self._context.choices.update(choices)
        if not choices["shadow_weights"]:
            self._context.policy.shadow = None
        apply(self._context.choices, self._context.policy)


def _advice(phase: Phase, step: int, context: TrainContext) -> str:
    config = context.config
    what = LOWER[phase].format(
        new=config.rollout.max_new_tokens,
        evaluated=config.evaluation_tokens,
        prompt=config.task.max_prompt_tokens,
        r=config.lora.r,
    )
    demanded = " or leave out rollout.weights=shadow," if context.choices["shadow_weights"] else ""
    tried = "even with a single row at a time"
    if phase == "optimizer":
        adapter = sum(value.numel() * value.element_size() for value in context.policy.adapter_parameters().values())
        tried = f"(the gradient, AdamW's two moments and a copy of the adapter need {4 * adapter / 2**20:.0f} MB)"
    where = "warm start" if step == 0 and phase in {"update", "optimizer"} else f"{phase} of step {step}"
    return (
        f"memory ran out in the {where} {tried}: close other programs that use this device's memory and resume,"
        f"{demanded} or start a run with a lower {what}; aapo-desk fit PRESET shows what would fit"
    )


def _random_state(device: torch.device) -> list[torch.Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_random_state(device: torch.device, state: list[torch.Tensor]) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
