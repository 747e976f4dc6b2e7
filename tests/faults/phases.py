"""Points at which a trainer is killed: the phases of a run, and a kill at a random instant inside one of them.

The product has no code for this. A forked trainer wraps the functions of a phase before it starts, and kills its whole
process group with SIGKILL: either after a random time in the phase (also in the middle of a system call or of one of
torch's kernels), or at a random line of Python in it (so that every point of a phase of microseconds can be hit).
"""

from __future__ import annotations

import functools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

PHASES = (
    "warm start",
    "rollout",
    "reward",
    "update",
    "optimiser step",
    "transaction",
    "checkpoint write",
    "rename",
    "evaluation",
)
SHORT = frozenset({"optimiser step", "transaction", "checkpoint write", "rename"})
"""Killed at a line in every other case; the others only by time."""

CALLERS = 6
"""A phase that begins inside a function continues in its callers: so many of them are traced."""


@dataclass(frozen=True)
class Blow:
    """When to kill: the ``entry``-th time that the phase is entered, or else a later time. ``share``: how far into the
    phase, between 0 and 1."""

    phase: str
    entry: int
    share: float
    by_line: bool


@dataclass
class Profile:
    """How long a phase lasts: seconds and lines of Python, for each time that it was entered."""

    seconds: list[float] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def typical(self, by_line: bool) -> float:
        values: list[float] = sorted(self.lines if by_line else self.seconds)
        return values[len(values) // 2]


class Watch:
    """Follows when a phase is entered and left."""

    def begin(self, phase: str, caller: FrameType) -> None: ...

    def end(self, phase: str) -> None: ...


class Profiler(Watch):
    """Measures every phase."""

    def __init__(self) -> None:
        self.profiles = {phase: Profile() for phase in PHASES}
        self._begun: dict[str, float] = {}
        self._counter: _Lines | None = None

    def begin(self, phase: str, caller: FrameType) -> None:
        if phase not in self._begun:
            self._begun[phase] = time.perf_counter()
            if phase in SHORT:
                self._counter = _Lines(caller, lambda _: None)

    def end(self, phase: str) -> None:
        if (begun := self._begun.pop(phase, None)) is None:
            return
        self.profiles[phase].seconds.append(time.perf_counter() - begun)
        if phase in SHORT and self._counter:
            self._counter.stop()
            self.profiles[phase].lines.append(self._counter.count)


class Killer(Watch):
    """Kills once. If the phase ends before the time or line is reached, it tries again the next time."""

    def __init__(self, blow: Blow, profile: Profile) -> None:
        self._blow = blow
        self._typical = profile.typical(blow.by_line)
        self._random = random.Random(repr(blow))
        self._share = blow.share
        self._entries = 0
        self._inside = False
        self._counter: _Lines | None = None
        sys.setswitchinterval(1e-5)  # else the killing thread waits for milliseconds while Python is busy

    def begin(self, phase: str, caller: FrameType) -> None:
        if phase != self._blow.phase or self._inside:
            return
        self._entries += 1
        if self._entries < self._blow.entry:
            return
        self._inside = True
        at = self._share * self._typical
        self._share = self._random.random() * self._share
        if self._blow.by_line:
            self._counter = _Lines(caller, lambda count: strike() if count > at else None)
        else:
            threading.Thread(target=self._later, args=(self._entries, at), daemon=True).start()

    def end(self, phase: str) -> None:
        if phase == self._blow.phase:
            self._inside = False
            if self._counter:
                self._counter.stop()

    def _later(self, entry: int, seconds: float) -> None:
        time.sleep(seconds)
        if self._inside and entry == self._entries:
            strike()


class _Lines:
    """Counts the lines executed from now on, in the calling functions and in those that they call."""

    def __init__(self, caller: FrameType, heard: Callable[[int], None]) -> None:
        self.count = 0
        self._heard = heard
        self._callers: list[FrameType] = []
        frame: FrameType | None = caller
        while frame and len(self._callers) < CALLERS:
            self._callers.append(frame)
            frame.f_trace = self._trace
            frame = frame.f_back
        sys.settrace(self._trace)

    def stop(self) -> None:
        sys.settrace(None)
        for frame in self._callers:
            frame.f_trace = None

    def _trace(self, _frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            self.count += 1
            self._heard(self.count)
        return self._trace


def strike() -> None:
    """Kill this process and its group. Its reward workers end as they do when the system kills the trainer."""
    os.killpg(0, signal.SIGKILL)


def install(watch: Watch, checkpoints: Path) -> None:
    """Wrap the phases' functions in this process before it becomes the trainer of the run with these checkpoints."""
    import torch

    from aapo_desk import checkpoint
    from aapo_desk.store import RunWriter
    from aapo_desk.training import rollouts, step, trainer, warm_start

    _around(warm_start, "supervise", "warm start", watch)
    _around(rollouts, "decode", "rollout", watch)
    _around(rollouts, "score", "reward", watch)
    _around(step, "update", "update", watch)
    _around(torch.optim.AdamW, "step", "optimiser step", watch)
    for method in ("write_step", "write_evaluation", "write_event", "write_system", "rewind", "remember"):
        _around(RunWriter, method, "transaction", watch)
    _around(trainer, "evaluate", "evaluation", watch)
    _around(checkpoint, "save", "checkpoint write", watch)
    _rename_to_prune(watch, checkpoints, checkpoint)


def _around(owner: Any, name: str, phase: str, watch: Watch) -> None:
    plain = getattr(owner, name)

    @functools.wraps(plain)
    def watched(*arguments: Any, **named: Any) -> Any:
        with _inside(phase, watch):
            return plain(*arguments, **named)

    setattr(owner, name, watched)


@contextmanager
def _inside(phase: str, watch: Watch) -> Iterator[None]:
    watch.begin(phase, sys._getframe())
    try:
        yield
    finally:
        watch.end(phase)


def _rename_to_prune(watch: Watch, checkpoints: Path, checkpoint: Any) -> None:
    """Wrap the phase "rename": from the first rename of a save to the end of the pruning after it."""
    rename, prune = Path.rename, checkpoint.prune

    def renamed(path: Path, target: Path) -> Path:
        if path.parent == checkpoints:
            watch.end("checkpoint write")
            watch.begin("rename", sys._getframe())
        return rename(path, target)

    def pruned(*arguments: Any, **named: Any) -> None:
        try:
            prune(*arguments, **named)
        finally:
            watch.end("rename")

    Path.rename = renamed  # type: ignore[method-assign, assignment]
    checkpoint.prune = pruned
