"""The effect of the UI on training speed: steps of one run with the UI open and without it, in turn."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from aapo_desk import launch
from aapo_desk.bench.jobs import BenchError
from aapo_desk.bench.rounds import Progress
from aapo_desk.bench.terminal import Terminal
from aapo_desk.bench.ui import BRAILLE, temporary_home
from aapo_desk.config import RunConfig, resolve
from aapo_desk.launch.child import python
from aapo_desk.store import RunDirectory, RunReader

WARM_UP = 2
STEPS_A_BLOCK = 3
PAIRS_A_ROUND = 2
SECONDS_A_LOOK = 0.1
# Student's t for a 95 % interval, for 1, 2, ... degrees of freedom. Above that, the normal distribution's 1.96 is close
# enough.
T95 = (
    *(12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


def bench_training(config: RunConfig, rounds: int, progress: Progress, command: Sequence[str] = ()) -> dict[str, Any]:
    """Measure pairs of step times of a real training without and with the UI, in alternating blocks of steps.

    ``command`` starts the trainer, as in ``launch.start``.

    Returns ``pairs`` in seconds, ``slowdown_percent`` with its 95 % interval, and of the UI its CPU use in percent of
    one core, the number of its reads, its longest read in ms, and the largest size of the write-ahead log in MiB.
    Raises BenchError if the run ends too early, and what ``launch.start`` raises.
    """
    pairs = PAIRS_A_ROUND * rounds
    steps = WARM_UP + 2 * pairs * (STEPS_A_BLOCK + 2)
    plan = {"run.steps": steps, "run.checkpoint_every": steps, "evaluation.problems": 0}
    with temporary_home() as home:
        run = launch.start(resolve(config.model_dump(mode="json"), plan), "watched", command)
        try:
            watch = _Watch(run, home)
            watch.wait_for(WARM_UP, None)
            found = []
            for pair in range(pairs):
                order = (False, True) if pair % 2 == 0 else (True, False)
                seconds = {shown: watch.block(shown) for shown in order}
                found.append({"without": seconds[False], "with": seconds[True]})
                progress(f"pair {pair + 1}/{pairs}: {seconds[False]:.3f} s without, {seconds[True]:.3f} s with the UI")
            return {"pairs": found, "slowdown_percent": slowdown(found), **watch.of_the_ui()}
        finally:
            _end(run)


def _end(run: RunDirectory) -> None:
    try:
        launch.kill(run)
    except launch.LaunchError:  # the run has already ended
        return
    while launch.is_alive(run):
        time.sleep(SECONDS_A_LOOK)


class _Watch:
    """Observes a running training, with the UI open or without it."""

    def __init__(self, run: RunDirectory, home: Path) -> None:
        self._run = run
        self._home = home
        self._reader = RunReader(run)
        self._stamp: object = None
        self._ended: dict[int, float] = {}
        self._wal_bytes = 0
        self._shares: list[float] = []
        self._notes: list[dict[str, Any]] = []

    def block(self, shown: bool) -> float:
        """Return the mean seconds of a step over a block of steps, with the UI ``shown`` all the time or not at all."""
        note = self._home / "reads.json"
        with ExitStack() as opened:
            terminal = None
            if shown:
                watched = [*python("aapo_desk.bench.watched"), self._run.id, str(note)]
                terminal = opened.enter_context(Terminal(watched, self._home))
                terminal.wait_for(BRAILLE)
            first = self.wait_for(self._last() + 1, terminal)  # skip the step during which the UI opened or closed
            cpu, began = terminal.cpu_seconds() if terminal else 0.0, time.perf_counter()
            last = self.wait_for(first + STEPS_A_BLOCK, terminal)
            if terminal:
                self._shares.append((terminal.cpu_seconds() - cpu) / (time.perf_counter() - began))
        if shown:
            self._notes.append(json.loads(note.read_text(encoding="utf-8")))
        return (self._ended[last] - self._ended[first]) / (last - first)

    def wait_for(self, step: int, terminal: Terminal | None) -> int:
        """Wait until ``step`` is done, and return it. Raises BenchError if the run ends before."""
        while self._last() < step:
            state = launch.state(self._run)
            if state not in launch.LIVE and self._last() < step:
                raise BenchError(
                    f"the run is {state}: {launch.reason(self._run) or 'it ended too early to be measured'}"
                )
            if terminal:
                terminal.pump(SECONDS_A_LOOK)
            else:
                time.sleep(SECONDS_A_LOOK)
        return step

    def _last(self) -> int:
        stamp = self._reader.stamp
        self._wal_bytes = max(self._wal_bytes, stamp[1][1])
        if stamp != self._stamp:
            self._stamp = stamp
            self._ended |= {step: when for step, when, _ in self._reader.poll().metrics}
        return max(self._ended, default=0)

    def of_the_ui(self) -> dict[str, float]:
        return {
            "cpu_percent": 100 * statistics.mean(self._shares),
            "reads": sum(note["reads"] for note in self._notes),
            "longest_read_ms": max(note["longest_read_ms"] for note in self._notes),
            "wal_mb": self._wal_bytes / 2**20,
        }


def slowdown(pairs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return by how many percent the UI lengthens a step: the mean over the pairs with its 95 % interval."""
    percent = [100 * (pair["with"] / pair["without"] - 1) for pair in pairs]
    mean, free = statistics.mean(percent), len(percent) - 1
    t = T95[free - 1] if free <= len(T95) else 1.96
    half = t * statistics.stdev(percent) / math.sqrt(len(percent))
    return {"mean": mean, "low": mean - half, "high": mean + half}
