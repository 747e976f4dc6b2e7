"""The UI's speed, CPU time and memory: the real program in a pseudo-terminal, over long runs in a temporary home."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aapo_desk.bench.jobs import BenchError
from aapo_desk.bench.long_run import Trainer, mark, trainer_of, write_run, write_status
from aapo_desk.bench.rounds import Progress
from aapo_desk.bench.terminal import SIZE, Terminal
from aapo_desk.launch.child import python
from aapo_desk.store import RunDirectory, create_run

RUNS_AT_HOME = 10
STARTS = 3
REFRESHES = 15
SCRUBS = 30
SECONDS_AT_REST = 15
SECONDS_TO_SETTLE = 8
SECONDS_A_STEP = 1.0
SECONDS_A_LOOK = 2.0  # at Home
BRAILLE = "[\u2801-\u28ff]"
NOTE = (
    "first_frame_s: from the start of the process to a frame with all its data, median of three starts; "
    "refresh_ms: CPU time for a new step, without the idle CPU time; "
    "idle_cpu_percent: CPU use in percent of one core while a trainer is alive but writes no step; "
    "scrub_ms: from the key press to the step's completions, in Home to the next row, median; memory_mb: peak memory"
)


def bench_ui(steps: int, progress: Progress) -> dict[str, Any]:
    """Measure the monitor on a run of ``steps`` steps and Home with ten such runs, and return the JSON document.

    Raises BenchError if the UI ends, does not show what it should, or the disk refuses a file.
    """
    with temporary_home() as home:
        progress(f"writing a run of {steps} steps")
        run = write_run("long-0", steps)
        spare = home / "spare.db"
        shutil.copyfile(run.database, spare)
        with trainer_of(run) as trainer:
            document = {"steps": steps, "terminal": f"{SIZE[0]}x{SIZE[1]}", "note": NOTE}
            document |= _monitor(trainer, home, progress)
            for number in range(1, RUNS_AT_HOME):
                _copy(run, spare, f"long-{number}")
            document["home"] = _home(trainer, home, progress)
        return document


@contextmanager
def temporary_home() -> Iterator[Path]:
    """Use a temporary home for runs and remove it afterwards. Raises BenchError if a file cannot be written."""
    before = dict(os.environ)
    try:
        with tempfile.TemporaryDirectory(prefix="aapo-desk-bench-") as folder:
            os.environ["AAPO_DESK_HOME"] = folder
            yield Path(folder)
    except OSError as error:
        raise BenchError(f"{error.filename or 'the temporary folder'}: {error.strerror or error}") from error
    finally:
        os.environ.clear()
        os.environ.update(before)


def _copy(run: RunDirectory, database: Path, name: str) -> None:
    """Create another run with the same numbers. Its database is a hard link to a file that nothing writes to."""
    copy = create_run(run.read_config(), name)
    os.link(database, copy.database)
    write_status(copy, "stopped", run.read_status()["step"])


def _monitor(trainer: Trainer, home: Path, progress: Progress) -> dict[str, Any]:
    def newest() -> str:
        return re.escape(mark(trainer.step))

    def complete() -> Sequence[str]:
        return newest(), BRAILLE

    def keys() -> Sequence[tuple[str, str]]:
        steps = range(trainer.step - 1, max(0, trainer.step - 1 - SCRUBS), -1)
        return [("h", re.escape(mark(step))) for step in steps]

    command = [*python("aapo_desk"), "watch", trainer.run.id]
    found = _measure(Place("monitor", command, complete, newest, keys, SECONDS_A_STEP), trainer, home, progress)
    note = home / "reads.json"
    with Terminal([*python("aapo_desk.bench.watched"), trainer.run.id, str(note)], home) as terminal:
        terminal.wait_for(*complete())
        rest(terminal, trainer, SECONDS_TO_SETTLE)
    found.update(json.loads(note.read_text(encoding="utf-8")))
    return found


def _home(trainer: Trainer, home: Path, progress: Progress) -> dict[str, Any]:
    names = [f"long-{number}" for number in range(RUNS_AT_HOME)]

    def newest() -> str:
        return str(trainer.step)

    def complete() -> Sequence[str]:
        return *names, newest()

    def keys() -> Sequence[tuple[str, str]]:
        down = RUNS_AT_HOME - 1
        return [(key, r"long-\d") for key in "j" * down + "k" * down]

    return _measure(Place("Home", python("aapo_desk"), complete, newest, keys, SECONDS_A_LOOK), trainer, home, progress)


@dataclass(frozen=True)
class Place:
    """A screen to measure.

    ``complete``, ``newest`` and ``keys`` return what should appear on it, as regular expressions: the complete first
    frame, the newest step, and for each key to press its effect.
    """

    name: str
    command: Sequence[str]
    complete: Callable[[], Sequence[str]]
    newest: Callable[[], str]
    keys: Callable[[], Sequence[tuple[str, str]]]
    seconds_a_step: float


def _measure(place: Place, trainer: Trainer, home: Path, progress: Progress) -> dict[str, Any]:
    first = []
    for _ in range(STARTS):
        trainer.beat()
        with Terminal(place.command, home) as terminal:
            first.append(terminal.wait_for(*place.complete()) - terminal.started)
    progress(f"{place.name}: first frame after {', '.join(f'{seconds:.2f}' for seconds in first)} s")
    with Terminal(place.command, home) as terminal:
        terminal.wait_for(*place.complete())
        rest(terminal, trainer, SECONDS_TO_SETTLE)
        busy = _refresh(terminal, trainer, place.seconds_a_step)
        terminal.wait_for(place.newest())
        idle = rest(terminal, trainer, SECONDS_AT_REST)
        found = {
            "first_frame_s": statistics.median(first),
            "refresh_ms": max(0.0, busy - 10 * idle) * place.seconds_a_step,
            "idle_cpu_percent": idle,
            **_press(terminal, place.keys()),
            "memory_mb": terminal.peak_mb(),
        }
    progress(f"{place.name}: " + ", ".join(f"{name} {value:.1f}" for name, value in found.items()))
    return found


def _refresh(terminal: Terminal, trainer: Trainer, seconds_a_step: float) -> float:
    """Write a step every ``seconds_a_step`` seconds, and return the UI's CPU time in ms per second."""
    before = terminal.cpu_seconds()
    for _ in range(REFRESHES):
        terminal.forget()
        trainer.write_step()
        terminal.pump(seconds_a_step)
    return 1000 * (terminal.cpu_seconds() - before) / (REFRESHES * seconds_a_step)


def rest(terminal: Terminal, trainer: Trainer, seconds: int) -> float:
    """Write only a heartbeat every second, and return the UI's CPU time in percent of one core."""
    before = terminal.cpu_seconds()
    for _ in range(seconds):
        trainer.beat()
        terminal.pump(1.0)
    return 100 * (terminal.cpu_seconds() - before) / seconds


def _press(terminal: Terminal, keys: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Press keys and wait for the effect of each. Returns the median ms until it appears and the CPU ms per key."""
    before, waits = terminal.cpu_seconds(), []
    for key, pattern in keys:
        pressed = terminal.press(key)
        waits.append(terminal.wait_for(pattern) - pressed)
        terminal.pump(0.1)
    used = (terminal.cpu_seconds() - before) / len(keys)
    return {"scrub_ms": 1000 * statistics.median(waits), "scrub_cpu_ms": 1000 * used}
