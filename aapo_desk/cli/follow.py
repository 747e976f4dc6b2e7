"""Follow a run in plain lines until it ends."""

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
"""Events with which a run pauses by itself."""


class Follower:
    """What has been said of a run so far, and the next lines."""

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
        """See how many steps the run is to take, and what it may use up besides."""
        self.steps = int(self.run.read_settings().get("run", {}).get("steps", 0))
        self.budget = planned_budget(self.run)

    def skip(self) -> None:
        """Take what there is as said."""
        for _ in self._lines(self.reader.poll()):
            pass

    def look(self) -> Iterator[str]:
        """The lines for what is new."""
        status = self.run.read_status()
        message = str(status.get("message") or "")
        slow = status.get("state") == "starting" or status.get("phase") in ("evaluation", "warm start")
        if slow and message not in ("", self._message) and not message.startswith("starting"):
            self._message = message
            yield printable(message)
        try:
            delta = self.reader.poll()
        except sqlite3.OperationalError:  # busy for longer than the reader waits, on a disk without WAL: next time
            return
        by_itself = status.get("state") == "paused" and message not in ("", "paused")
        yield from self._lines(delta, PAUSES if by_itself else frozenset())
        if by_itself and message != self._why_paused:  # it says what to do, too
            yield printable(message)
        self._why_paused = message if by_itself else ""

    def _lines(self, delta: Delta, unsaid: frozenset[str] = frozenset()) -> Iterator[str]:
        """All lines but those of events of the kinds in ``unsaid``."""
        fresh = [event for event in delta.events if event.id > self._event]
        if delta.reset:
            self.evaluations.clear()
            self._spent = 0.0
            back_to = [int(event.data.get("from_step", 0)) for event in fresh if event.kind == "resumed"]
            self._step = min([self._step, *back_to])
        # In the order of the steps: what came before the first, then each step, its evaluation and what happened after.
        # An evaluation has no time of its own, and times alone would put it wherever this look happened to be.
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
                after = event.step or event.kind == "warm_start"  # the base is measured before it
                lines.append((event.step, 3 if after else 0, text))
        yield from (line for _, _, line in sorted(lines, key=lambda item: item[:2]))

    def _spend(self, metrics: Mapping[str, float | None]) -> Budget | None:
        """What is gone of the budget with this step."""
        if self.budget is None:
            return None
        self._spent += sum(metrics.get(key) or 0.0 for key in SPENT_BY[self.budget.unit])
        return replace(self.budget, spent=self._spent)


def follow(follower: Follower, ends_the_run: bool) -> int:
    """Say what a run does until it ends; the exit status: 0 finished (or left alone by Ctrl-C), 1 anything else.

    With ``ends_the_run`` Ctrl-C (or SIGTERM) asks the trainer to checkpoint and stop, and a second one ends it at
    once; without it, Ctrl-C ends the following and leaves the run running.
    """
    run = follower.run
    with interrupts() as asked:
        answered = 0
        while True:
            current = state(run)  # before the look, so that a run that has ended has nothing left unsaid
            for line in follower.look():
                say(line)
            if current not in LIVE:
                return last_word(follower, current)
            asked.wait(SECONDS_BETWEEN_LOOKS)
            if asked.count > answered:
                if not ends_the_run:
                    complain(f"the run goes on; see it again with: aapo-desk watch {run.id}")
                    return 0
                answered += 1  # one at a time: another may come while this one is answered
                _answer(run, first=answered == 1)


def _answer(run: RunDirectory, first: bool) -> None:
    try:
        if first:
            request(run, "stop")
            complain("asked it to write a checkpoint and stop; Ctrl-C again ends it at once")
        else:
            kill(run)
            complain("ended at once; what came after the last checkpoint is lost")
    except LaunchError as error:  # it has just ended by itself
        complain(str(error))


class Interrupts:
    """How often an end was asked for."""

    def __init__(self) -> None:
        self.count = 0
        self._event = threading.Event()

    def note(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self._event.set()

    def wait(self, seconds: float) -> None:
        """Until the next interrupt, at most ``seconds``."""
        self._event.wait(seconds)
        self._event.clear()


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Count Ctrl-C and SIGTERM instead of dying of them."""
    counted = Interrupts()
    before = {number: signal.signal(number, counted.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield counted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def last_word(follower: Follower, current: str) -> int:
    """How the run ended, what came of it, and what to do next."""
    run = follower.run
    done = int(run.read_status().get("step", 0))
    follower.read_plan()  # a budget that is used up has changed it
    for line in base_against_tuned(follower.evaluations):
        say(line)
    found = adapters(run)
    if found:
        newest = max(found)
        say(f"adapter: {found[newest]}")
        if follower.best in found and follower.best != newest:
            say(f"the best by evaluation: {found[follower.best]}")
    if current == "finished":
        say(f"finished, {done} of {follower.steps} steps; see it with: aapo-desk watch {run.id}")
        return 0
    if current == "stopped":
        where = progress(done, follower.steps, follower.budget, " of ")
        complain(f"stopped after step {where}; go on with: aapo-desk resume {run.id}")
    else:
        why = printable(reason(run) or "no reason given")
        complain(f"run {run.name} {current}: {why} (log: {run.log}; try again with: aapo-desk resume {run.id})")
    return 1


def adapters(run: RunDirectory) -> dict[int, Path]:
    """The folders of the adapters in the run's checkpoints, by their step."""
    found = sorted(run.checkpoints.glob("step_*/adapter/adapter_config.json"))
    return {int(path.parent.parent.name.removeprefix("step_")): path.parent for path in found}
