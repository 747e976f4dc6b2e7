"""The training loop: evaluate, step and save checkpoints until the planned steps are done or a stop is requested."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from functools import partial
from typing import Any

from aapo_desk import checkpoint as checkpoints
from aapo_desk.algorithms.aapo import PAIRED_BY_MEAN
from aapo_desk.checkpoint import Checkpoint
from aapo_desk.config import RunConfig
from aapo_desk.evaluation.accuracy import recounted
from aapo_desk.evaluation.held_out import NAME, evaluate
from aapo_desk.hardware import machine
from aapo_desk.memory import EVALUATED_AT_ONCE
from aapo_desk.rollout import BANKED
from aapo_desk.store import Budget, RunDirectory, RunWriter, progress
from aapo_desk.store.unscorable import evaluation_notes
from aapo_desk.tasks.difficulty import ADAPTIVE
from aapo_desk.training import budget
from aapo_desk.training.alarms import Watch
from aapo_desk.training.control import Control, StopRequested
from aapo_desk.training.device.allocator import MemoryGoneError, give_back
from aapo_desk.training.distributed.messages import asking
from aapo_desk.training.low_memory import LowMemory
from aapo_desk.training.oom_retry import OomRetry
from aapo_desk.training.pauses import NoRoom
from aapo_desk.training.rollback import Recovery
from aapo_desk.training.setup import Prepared
from aapo_desk.training.step import StepResult, run_step
from aapo_desk.training.warm_start import warm_start

log = logging.getLogger(__name__)

PAUSE_POLL_SECONDS = 0.1
FROM_ADAPTER = (
    "training starts from the adapter {}; the reference is the base model with that adapter, frozen, and the "
    "evaluation before training measures the same"
)
NETWORK_DISK = "the run is on a network disk: the trainer and its readers may wait for each other for a moment"


@dataclasses.dataclass
class Trainer:
    """Trains one run in this process. ``step`` is the last step that is finished and written."""

    run: RunDirectory
    config: RunConfig
    prepared: Prepared
    store: RunWriter
    control: Control
    step: int = 0
    saved: int = 0
    """The step of the newest checkpoint."""
    steps: int = dataclasses.field(init=False)
    """The number of steps after which the run ends."""
    budget: Budget | None = None
    """The run's limit on training time or completions, in addition to ``steps``; None if it has none."""
    watch: Watch = dataclasses.field(init=False)
    recovery: Recovery = dataclasses.field(init=False)
    oom_retry: OomRetry = dataclasses.field(init=False)
    shortage: LowMemory = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        context = self.prepared.context
        self.steps = self.config.run.steps
        self.watch = Watch(self.config, context.policy, self.store)
        self.recovery = Recovery(self.run, context, self.store)
        self.oom_retry = context.oom_retry = OomRetry(context, self.store)
        self.shortage = LowMemory(self.store, context.policy.device)

    def train(self) -> None:
        """Train from the run's current step to its end. Raises StopRequested once a stop has been carried out."""
        self._resume()
        self.control.say(state="running", step=self.step)
        try:
            if self.step and self.prepared.held_out is not None and 0 not in self.store.evaluations(NAME):
                self._evaluate_base()  # a fork whose held-out problems or evaluation settings differ from its parent's
            while True:
                if self._evaluation_due():
                    self._evaluate()
                    self._save()
                elif self.step and (self.step % self.config.run.checkpoint_every == 0 or self._last()):
                    self._save()
                if self._last():
                    break
                self._requests()
                if self.step == 0:
                    self._warm_start()
                self._step()
        except NoRoom:
            raise
        except StopRequested:
            self._save()
            raise
        except MemoryGoneError:
            if self.config.algorithm.updates_per_rollout == 1:  # else the next step may be half applied
                self._save()
            raise
        self._finish()

    def _last(self) -> bool:
        return self.step >= self.steps

    def _measure_the_budget(self) -> None:
        """Measure how much of the budget is used and report it. Replanning the run's steps removes its budget."""
        self.budget = None if self.run.replanned_steps() else budget.spent(self.config.run, self.store)
        ends = self._last() or budget.used_up(self.budget)
        self.control.say(budget=dataclasses.asdict(self.budget) if self.budget and not ends else None)

    def _look_at_the_budget(self) -> None:
        """Make this step the run's last if the budget is used up."""
        used_up = budget.used_up(self.budget)
        if used_up and not self._last():
            self.run.replan(self.step)  # before the evaluation, so that a run resumed during it ends here too
            self.steps = self.step
            self.control.say(steps=self.step)
            self.store.write_event("notice", self.step, message=f"{used_up}: this was the last step")
            log.info("%s: step %d was the last", used_up, self.step)

    def _resume(self) -> None:
        """Restore the newest intact checkpoint and remove everything that was written after it."""
        found = self.recovery.newest()
        began_before = self.store.recall("started") is not None
        if found:
            checkpoint, state, refused = found
            for reason in refused:
                log.warning("checkpoint skipped: %s", reason)
                self.store.write_event("notice", checkpoint.step, message=f"checkpoint skipped: {reason}")
            self.recovery.place(checkpoint, state)
            self.step = self.saved = checkpoint.step
        if not began_before:
            self._begin()
        if began_before or self.step:  # a fork starts from a checkpoint of its parent
            self.store.rewind(self.step)
            self.watch.resume(self._evaluations())
            self.store.write_event("resumed", self.step, from_step=self.step)
            self._tell_the_plan()
            log.info("resuming after step %d", self.step)
        self._measure_the_budget()
        self.recovery.resume(self.step)
        self.oom_retry.resume(self.step)

    def _begin(self) -> None:
        """Write the events that begin a run, except notices that a fork has inherited from its parent."""
        self.store.remember("started", time.time())
        if not self.step:
            self.store.write_event("started", 0)
        said = {data.get("message") for _, data in self.store.events("notice")}
        for applies, message in (
            (self.store.journal_mode != "WAL", NETWORK_DISK),
            (self.prepared.context.bank is not None, BANKED),
            (self.config.algorithm.method.has_margin and self.config.algorithm.pairing == "mean", PAIRED_BY_MEAN),
            (self.prepared.context.difficulty is not None, ADAPTIVE),
            (self.prepared.context.policy.start is not None, FROM_ADAPTER.format(self.config.lora.start_from)),
        ):
            if applies and message not in said:
                self.store.write_event("notice", self.step, message=message)

    def _tell_the_plan(self) -> None:
        """Write a ``replanned`` event if the planned number of steps has changed since it was last recorded."""
        before = self.store.planned()
        if before != self.config.run.steps:
            schedule = self.config.optimizer.schedule
            self.store.write_event(
                "replanned", self.step, before=before, steps=self.config.run.steps, schedule=schedule
            )

    def _warm_start(self) -> None:
        def evaluate() -> dict[str, Any]:
            return self._answers(self.store.evaluations(NAME).get(0), "evaluating after the warm start")

        asked = self.prepared.held_out is not None
        warm_start(self.prepared.context, self.store, self.control.report, evaluate if asked else None)

    def _step(self) -> None:
        number = self.oom_retry.step = self.step + 1
        several = self.config.algorithm.updates_per_rollout > 1

        def report(phase: str, progress: float | None) -> None:
            said = f"step {number}: {phase}"
            if phase == "update" and progress and several:  # partly applied: too late to drop the step
                self.control.say(phase=phase, progress=progress, message=said)
                return
            self.control.report(phase, progress, said)
            self.shortage.check(self.step)

        result = run_step(self.prepared.context, number, report)
        self.store.write_step(result.record)
        self.step = number
        self._measure_the_budget()
        self._tell(result)
        self._look_at_the_budget()
        snapshot = machine()
        self.store.write_system(snapshot.as_json())
        self.watch.step(number, result.record.metrics, snapshot)
        if (back := self.recovery.judge(number, result.update.broken)) is not None:
            self.step = self.saved = back
            self.watch = Watch(self.config, self.prepared.context.policy, self.store)
            self.watch.resume(self._evaluations())
        self.oom_retry.settle(self.step, self._save)
        self.control.say(step=self.step, phase="idle", progress=None)

    def _tell(self, result: StepResult) -> None:
        metrics = result.record.metrics
        shown = {"reward": "reward", "reference": "reference_reward", "|advantage|": "advantage_abs"}
        has = [f"{name} {metrics[key]:.3f}" for name, key in shown.items() if not math.isnan(metrics[key])]
        log.info(
            "step %s  %s  grad norm %.3f  %.1f s",
            progress(self.step, self.steps, self.budget),
            "  ".join(has),
            metrics["grad_norm"],
            sum(metrics[f"seconds_{phase}"] for phase in ("rollout", "reward", "update")),
        )
        if result.unscorable:
            error, completion = result.unscorable[0]
            count = len(result.unscorable)
            log.warning("%d completions could not be scored; the first: %s", count, error)
            function = error.partition(":")[0]  # a score's error begins with the name of the function that failed
            self.store.write_event(
                "unscorable", self.step, count=count, function=function, error=error, completion=completion[:500]
            )
        if (scale := self.prepared.context.scale) and not result.update.applied and not result.update.broken:
            message = "the gradient was not finite, so this step was skipped"
            message += f"; the loss scale is now {scale.factor:g}, steps skipped so far: {scale.skipped}"
            log.warning(message)
            self.store.write_event("notice", self.step, message=message)

    def _requests(self) -> None:
        """Carry out requested checkpoints, pauses and stops, between two steps."""
        if self.control.checkpoint.is_set():
            self.control.checkpoint.clear()
            self._save()
        if self.control.pause.is_set() and not self.control.stop.is_set():
            self.store.write_event("paused", self.step)
            self.control.say(state="paused", phase="idle", progress=None, message="paused")
            while self.control.pause.is_set() and not self.control.stop.is_set():
                if self.control.checkpoint.is_set():
                    self.control.checkpoint.clear()
                    self._save()
                time.sleep(PAUSE_POLL_SECONDS)
            if not self.control.stop.is_set():
                self.store.write_event("unpaused", self.step)
                self.control.say(state="running", message="")
        self.control.check()

    def _evaluation_due(self) -> bool:
        every = self.config.evaluation.every
        due = self.step == 0 or self._last() or (every > 0 and self.step % every == 0)
        return due and self.prepared.held_out is not None and self.step not in self.store.evaluations(NAME)

    def _evaluate(self) -> None:
        data = self._answers(self.store.evaluations(NAME).get(0), f"evaluating after step {self.step}")
        self.store.write_evaluation(self.step, NAME, data)
        self.oom_retry.settle(self.step, self._save)
        self.watch.evaluation(self.step, self._evaluations())
        log.info("held-out accuracy after step %d: greedy %s", self.step, data["greedy"]["accuracy"])
        for note in evaluation_notes(data):
            log.warning("evaluation after step %d: %s", self.step, note)

    def _evaluations(self) -> dict[int, dict[str, Any]]:
        """Return the run's evaluations by step, all counted by this version's rule, also those of older versions."""
        return recounted(self.store.evaluations(NAME))

    def _evaluate_base(self) -> None:
        self.store.write_evaluation(0, NAME, self._answers(None, "evaluating the base", adapter=False))

    def _answers(self, base: dict[str, Any] | None, message: str, adapter: bool = True) -> dict[str, Any]:
        """Evaluate the policy, or with ``adapter=False`` the reference, and return the evaluation."""
        asked = self.prepared.held_out
        assert asked is not None
        context = self.prepared.context

        def report(share: float) -> None:
            self.control.report("evaluation", share, message)
            self.shortage.check(self.step)

        self.oom_retry.step = self.step
        return context.attempt(
            "evaluation",
            min(EVALUATED_AT_ONCE, 2 * len(asked.problems)),
            lambda: evaluate(
                context.policy,
                asked,
                self.config,
                base=base,
                batch_rows=min(EVALUATED_AT_ONCE, context.choices["batch_rows"]),
                progress=report,
                fixed=bool(context.choices["fixed_steps"]),
                adapter=adapter,
                asking=asking(context.ranks),
            ),
        )

    def _save(self) -> None:
        """Save a checkpoint of the last finished step, unless there is one or no step has been taken yet."""
        if self.step == 0 or self.step == self.saved:
            return
        self.control.say(phase="checkpoint", progress=None, message=f"saving step {self.step}")
        context = self.prepared.context
        save = partial(
            checkpoints.save,
            self.run.checkpoints,
            self.step,
            context.policy,
            context.optimizer,
            context.choices,
            loss_scale=context.scale.as_json() if context.scale else None,
            difficulty=context.difficulty.state() if context.difficulty else None,
        )
        done = self.store.keep(save, needed=checkpoints.room(context.policy))
        self.saved = self.step
        best = self._best()
        always = ({best} if best else set()) | self.recovery.after_save()
        checkpoints.prune(self.run.checkpoints, self.config.run.keep_checkpoints, always)
        self.store.write_event("checkpoint", self.step, path=str(done.path.relative_to(self.run.path)), best=best)
        if context.policy.device.type == "cpu":
            give_back(context.policy.device)  # else heap fragmentation adds up to a megabyte in 1000 steps

    def _best(self) -> int | None:
        """Return the step of the best evaluated checkpoint: by greedy accuracy, then by sampled, then the later one."""

        def rank(item: tuple[int, dict[str, Any]]) -> tuple[float, float, int]:
            step, data = item
            return data["greedy"]["accuracy"] or 0.0, data["sampled"]["accuracy"] or 0.0, step

        # A fork also has the evaluations of steps whose checkpoints only its parent has.
        kept = {one.step for one in checkpoints.list_checkpoints(self.run.checkpoints)}
        evaluated = {step: data for step, data in self._evaluations().items() if step in kept}
        return max(evaluated.items(), key=rank)[0] if evaluated else None

    def _finish(self) -> None:
        best = self._best()
        last = Checkpoint(self.run.checkpoints / checkpoints.checkpoint_name(self.step), self.step)
        self.store.write_event("finished", self.step, adapter=str(last.adapter.relative_to(self.run.path)), best=best)
