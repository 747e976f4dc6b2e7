"""Follow a run as lines of text until it ends."""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from aapo_desk.cli.lines import base_against_tuned, evaluation_line, event_line, step_line
from aapo_desk.cli.output import complain, printable, say
from aapo_desk.launch import LIVE, LaunchError, kill, reason, request, state
from aapo_desk.store import SPENT_BY, Budget, Delta, RunDirectory, RunReader, planned_budget, progress

SECONDS_BETWEEN_LOOKS = 0.5
PAUSES = frozenset({"disk_full", "rewards_failing"})
"""Kinds of events with which a run pauses by itself."""


class Follower:
    """A reader of a run that remembers what it has printed and returns the lines that are new."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.reader = RunReader(run)
        self.read_plan()
        self.evaluations: dict[int, dict[str, Any]] = {}
        self.best: int | None = None
        self._step = 0
        self._spent = 0.0
        self._event = 0
        self._told: dict[int, str] = {}
        self._message = ""
        self._why_paused = ""

    def read_plan(self) -> None:
        """Read the planned number of steps and the budget, if there is one."""
        self.steps = int(self.run.read_settings().get("run", {}).get("steps", 0))
        self.budget = planned_budget(self.run)

    def skip(self) -> None:
        """Mark everything up to now as already printed."""
        for _ in self._lines(self.reader.poll()):
            pass

    def look(self) -> Iterator[str]:
        """Yield the lines for what is new since the last call."""
        status = self.run.read_status()
        message = str(status.get("message") or "")
        slow = status.get("state") == "starting" or status.get("phase") in ("evaluation", "warm start")
        if slow and message not in ("", self._message) and not message.startswith("starting"):
            self._message = message
            yield printable(message)
        try:
            delta = self.reader.poll()
        except sqlite3.OperationalError:  # locked for longer than the reader waits (a disk without WAL): try next time
            return
        by_itself = status.get("state") == "paused" and message not in ("", "paused")
        yield from self._lines(delta, PAUSES if by_itself else frozenset())
        if by_itself and message != self._why_paused:  # the message also says what to do
            yield printable(message)
        self._why_paused = message if by_itself else ""

    def _lines(self, delta: Delta, unsaid: frozenset[str] = frozenset()) -> Iterator[str]:
        """Yield the lines of a delta, except those of events whose kind is in ``unsaid``."""
        fresh = [event for event in delta.events if event.id > self._event]
        if delta.reset:
            self.evaluations.clear()
            self._spent = 0.0
            back_to = [int(event.data.get("from_step", 0)) for event in fresh if event.kind == "resumed"]
            self._step = min([self._step, *back_to])
        # Order the lines by step: what came before the first, then each step, its evaluation, and what happened after.
        # An evaluation has no timestamp, so sorting by time would place it by when this poll happened to read it.
        lines: list[tuple[int, int, str]] = []
        for step, _, metrics in delta.metrics:
            budget = self._spend(metrics)
            if step > self._step:
                lines.append((step, 1, step_line(step, self.steps, metrics, budget)))
                self._step = step
        for step, name, data in delta.evaluations:
            if name == "held_out":
                self.evaluations[step] = data
                line = evaluation_line(step, data)
                if self._told.get(step) != line:
                    self._told[step] = line
                    lines.append((step, 2, line))
        for event in fresh:
            self._event = event.id
            if event.kind in ("checkpoint", "finished"):
                self.best = event.data.get("best")
            if event.kind not in unsaid and (text := event_line(event.kind, event.data)):
                after = event.step or event.kind == "warm_start"  # the base model is evaluated before a warm start
                lines.append((event.step, 3 if after else 0, text))
        yield from (line for _, _, line in sorted(lines, key=lambda item: item[:2]))

    def _spend(self, metrics: Mapping[str, float | None]) -> Budget | None:
        """Return the budget including what this step spent, or None if the run has no budget."""
        if self.budget is None:
            return None
        self._spent += sum(metrics.get(key) or 0.0 for key in SPENT_BY[self.budget.unit])
        return replace(self.budget, spent=self._spent)


def follow(follower: Follower, ends_the_run: bool) -> int:
    """Print what a run does until it ends. Return 0 if it finished or Ctrl-C detached from it, else 1.

    With ``ends_the_run``, Ctrl-C (or SIGTERM) asks the trainer to write a checkpoint and stop, and a second one kills
    it. Without it, Ctrl-C only stops following, and the run continues.
    """
    run = follower.run
    with interrupts() as asked:
        answered = 0
        while True:
            current = state(run)  # read before look(), so that nothing of an ended run stays unprinted
            for line in follower.look():
                say(line)
            if current not in LIVE:
                return last_word(follower, current)
            asked.wait(SECONDS_BETWEEN_LOOKS)
            if asked.count > answered:
                if not ends_the_run:
                    complain(f"the run continues; watch it again with: aapo-desk watch {run.id}")
                    return 0
                answered += 1  # one at a time: another may arrive while this one is handled
                _answer(run, first=answered == 1)


def _answer(run: RunDirectory, first: bool) -> None:
    try:
        if first:
            request(run, "stop")
            complain("asked the run to write a checkpoint and stop; press Ctrl-C again to kill it")
        else:
            kill(run)
            complain("killed the run; the steps after its last checkpoint are lost")
    except LaunchError as error:  # the run has just ended by itself
        complain(str(error))


class Interrupts:
    """A counter of interrupts (Ctrl-C and SIGTERM) that can be waited on."""

    def __init__(self) -> None:
        self.count = 0
        self._event = threading.Event()

    def note(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self._event.set()

    def wait(self, seconds: float) -> None:
        """Wait for the next interrupt, at most ``seconds``."""
        self._event.wait(seconds)
        self._event.clear()


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Inside the block, count Ctrl-C and SIGTERM instead of ending the process."""
    counted = Interrupts()
    before = {number: signal.signal(number, counted.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield counted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def last_word(follower: Follower, current: str) -> int:
    """Print how the run ended, its results and what to do next; return the exit status."""
    run = follower.run
    done = int(run.read_status().get("step", 0))
    follower.read_plan()  # a budget that ran out has changed the number of steps
    for line in base_against_tuned(follower.evaluations):
        say(line)
    found = adapters(run)
    if found:
        newest = max(found)
        say(f"adapter: {found[newest]}")
        if follower.best in found and follower.best != newest:
            say(f"best by evaluation: {found[follower.best]}")
    if current == "finished":
        say(f"finished, {done} of {follower.steps} steps; watch it with: aapo-desk watch {run.id}")
        return 0
    if current == "stopped":
        where = progress(done, follower.steps, follower.budget, " of ")
        complain(f"stopped after step {where}; resume with: aapo-desk resume {run.id}")
    else:
        why = printable(reason(run) or "no reason given")
        complain(f"run {run.name} {current}: {why} (log: {run.log}; resume with: aapo-desk resume {run.id})")
    return 1


def adapters(run: RunDirectory) -> dict[int, Path]:
    """Return the adapter folders of the run's checkpoints, by step."""
    found = sorted(run.checkpoints.glob("step_*/adapter/adapter_config.json"))
    return {int(path.parent.parent.name.removeprefix("step_")): path.parent for path in found}
