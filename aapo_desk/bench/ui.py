"""What the UI takes: the real program in a pseudo-terminal, over runs of many steps in a home of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    "first_frame_s: from the start of the process to a frame with all its data, the median of three starts; "
    "refresh_ms: processor time a new step; idle_cpu_percent: of one core while a trainer lives and writes no step; "
    "scrub_ms: from the key to the step's completions, at Home to the next row, the median; memory_mb: the most held"
)


def bench_ui(steps: int, progress: Progress) -> dict[str, Any]:
    """The monitor over one run of ``steps``, and Home over ten of them: the JSON document. Raises BenchError."""
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
    """A home for runs that is removed afterwards. Raises BenchError for what the disk refuses."""
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
    """Another run with these numbers. Its database is one more name of a file that nobody writes to."""
    copy = create_run(run.read_config(), name)
    os.link(database, copy.database)
    write_status(copy, "stopped", run.read_status()["step"])


def _monitor(trainer: Trainer, home: Path, progress: Progress) -> dict[str, Any]:
    command = [*python("aapo_desk"), "watch", trainer.run.id]

    def complete() -> Sequence[str]:
        return re.escape(mark(trainer.step)), BRAILLE

    first = [_first_frame(command, home, trainer, complete()) for _ in range(STARTS)]
    progress(f"monitor: first frame after {', '.join(f'{seconds:.2f}' for seconds in first)} s")
    with Terminal(command, home) as terminal:
        terminal.wait_for(*complete())
        rest(terminal, trainer, SECONDS_TO_SETTLE)
        found = {"first_frame_s": statistics.median(first)}
        found["refresh_ms"] = _refresh(terminal, trainer, SECONDS_A_STEP)
        terminal.wait_for(complete()[0])
        found["idle_cpu_percent"] = rest(terminal, trainer, SECONDS_AT_REST)
        steps = range(trainer.step - 1, max(1, trainer.step - 1 - SCRUBS), -1)
        found |= _press(terminal, [("h", re.escape(mark(step))) for step in steps])
        found["memory_mb"] = terminal.peak_mb()
    progress(said("monitor", found))
    note = home / "reads.json"
    with Terminal([*python("aapo_desk.bench.watched"), trainer.run.id, str(note)], home) as terminal:
        terminal.wait_for(*complete())
        rest(terminal, trainer, SECONDS_TO_SETTLE)
    found.update(json.loads(note.read_text(encoding="utf-8")))
    return found


def _home(trainer: Trainer, home: Path, progress: Progress) -> dict[str, Any]:
    command = python("aapo_desk")
    names = [f"long-{number}" for number in range(RUNS_AT_HOME)]

    def complete() -> Sequence[str]:
        return *names, str(trainer.step)

    first = [_first_frame(command, home, trainer, complete()) for _ in range(STARTS)]
    progress(f"Home: first frame after {', '.join(f'{seconds:.2f}' for seconds in first)} s")
    with Terminal(command, home) as terminal:
        terminal.wait_for(*complete())
        rest(terminal, trainer, SECONDS_TO_SETTLE)
        found = {"first_frame_s": statistics.median(first)}
        found["refresh_ms"] = _refresh(terminal, trainer, SECONDS_A_LOOK)
        terminal.wait_for(str(trainer.step))
        found["idle_cpu_percent"] = rest(terminal, trainer, SECONDS_AT_REST)
        down = RUNS_AT_HOME - 1
        found |= _press(terminal, [(key, r"long-\d") for key in "j" * down + "k" * down])
        found["memory_mb"] = terminal.peak_mb()
    progress(said("Home", found))
    return found


def _first_frame(command: Sequence[str], home: Path, trainer: Trainer, complete: Sequence[str]) -> float:
    trainer.beat()
    with Terminal(command, home) as terminal:
        return terminal.wait_for(*complete) - terminal.started


def _refresh(terminal: Terminal, trainer: Trainer, seconds: float) -> float:
    """Processor time in ms for each step that is written, one in so many seconds."""
    before = terminal.cpu_seconds()
    for _ in range(REFRESHES):
        terminal.forget()
        trainer.write_step()
        terminal.pump(seconds)
    return 1000 * (terminal.cpu_seconds() - before) / REFRESHES


def rest(terminal: Terminal, trainer: Trainer, seconds: int) -> float:
    """Let nothing happen but a heartbeat a second; gives the processor time in percent of one core."""
    before = terminal.cpu_seconds()
    for _ in range(seconds):
        trainer.beat()
        terminal.pump(1.0)
    return 100 * (terminal.cpu_seconds() - before) / seconds


def _press(terminal: Terminal, keys: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Press keys and wait for what each brings: ms until it is there, the median, and processor time for each."""
    before, waits = terminal.cpu_seconds(), []
    for key, pattern in keys:
        pressed = terminal.press(key)
        waits.append(terminal.wait_for(pattern) - pressed)
        terminal.pump(0.1)
    used = (terminal.cpu_seconds() - before) / len(keys)
    return {"scrub_ms": 1000 * statistics.median(waits), "scrub_cpu_ms": 1000 * used}


def said(what: str, found: dict[str, Any]) -> str:
    """The numbers in one line."""
    return f"{what}: " + ", ".join(f"{name} {value:.1f}" for name, value in found.items())
