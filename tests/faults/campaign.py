"""Kill runs many times, resume them each time, and compare them with an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from aapo_desk import checkpoint as checkpoints
from aapo_desk import launch
from aapo_desk.config import RunConfig
from aapo_desk.store import RunDirectory, RunReader, create_run
from tests.faults.phases import PHASES, SHORT, Blow, Killer, Profile, Profiler, Watch, install

CLOCKS = ("seconds_", "tokens_per_second", "memory_mb")
KILLS_A_RUN = 12
"""Then it is left to come to its end. Many come to it before, between two blows."""
PATIENCE = 180.0


@dataclass
class Tally:
    """The results of the kills in one phase. All counts except the first two must be 0."""

    kills: int = 0
    steps_redone: int = 0
    """Steps that were done and written, and done again after the resume."""
    not_crashed: int = 0
    """Runs that were not shown as crashed."""
    left_over: int = 0
    """Processes that outlived their trainer."""
    integrity: int = 0
    half_steps: int = 0
    """Databases with a step missing, doubled or not whole."""
    torn_checkpoints: int = 0
    not_resumed: int = 0
    """Runs that did not continue from their newest checkpoint."""
    lost_more: int = 0
    """Runs that lost more steps than lie between two checkpoints."""


@dataclass
class Result:
    """The results of all phases. ``different``: the differences from the undisturbed run, one line each."""

    tallies: dict[str, Tally] = field(default_factory=lambda: {phase: Tally() for phase in PHASES})
    runs: int = 0
    different: list[str] = field(default_factory=list)

    @property
    def losses(self) -> int:
        allowed = ("kills", "steps_redone")
        lost: list[int] = [
            value for tally in self.tallies.values() for name, value in asdict(tally).items() if name not in allowed
        ]
        return len(self.different) + sum(lost)


def kill_and_resume(
    config: RunConfig, kills: int, seed: int, tell: Callable[[str], None] = lambda _: None
) -> tuple[Result, dict[str, Profile]]:
    """Kill runs of ``config`` ``kills`` times in each phase.

    This process must have no other thread: it imports what a trainer needs and forks one for each attempt.
    """
    _import()
    undisturbed = create_run(config, "undisturbed")
    profiles = _measure(undisturbed)
    tell("the undisturbed run is done")
    chance = random.Random(seed)
    blows = [_blow(phase, number, chance) for phase in PHASES for number in range(kills)]
    chance.shuffle(blows)
    result = Result()
    while blows:
        run = create_run(config, f"killed-{result.runs + 1}")
        _disturb(run, blows, profiles, result)
        result.runs += 1
        result.different += [f"{run.name}: {line}" for line in differences(run, undisturbed)]
        tell(f"{run.name} ended; {len(blows)} kills to come")
        shutil.rmtree(run.path)
    return result, profiles


def _blow(phase: str, number: int, chance: random.Random) -> Blow:
    entry = chance.randint(1, 10 if phase == "transaction" else 3)
    return Blow(phase, entry, chance.random(), phase in SHORT and number % 2 == 0)


def _disturb(run: RunDirectory, blows: list[Blow], profiles: dict[str, Profile], result: Result) -> None:
    """Kill a run until it finishes between two kills or has been killed often enough; then let it finish."""
    course = Course()
    for _ in range(KILLS_A_RUN):
        if not blows:
            break
        blow = blows.pop()
        pid, status = _train(run, Killer(blow, profiles[blow.phase]))
        if status == 0:
            # The run finished before the kill. If a busy machine has become idle, phases are shorter than measured, and
            # this would repeat forever.
            blows.insert(0, replace(blow, share=blow.share / 2))
            return
        if status >= 0:
            result.different.append(f"{run.name}: ended with status {status}: {run.log.read_text()[-2000:]}")
            return
        tally = result.tallies[blow.phase]
        tally.kills += 1
        _look_at(run, pid, tally, course)
    _, status = _train(run, Watch())
    if status != 0:
        result.different.append(
            f"{run.name}: the last resume ended with status {status}: {run.log.read_text()[-2000:]}"
        )


@dataclass
class Course:
    """The course of a killed run: its newest checkpoint at its last start, and how often it has reported resuming."""

    newest: int = 0
    resumed: int = 0


def _look_at(run: RunDirectory, pid: int, tally: Tally, course: Course) -> None:
    """Check what a killed trainer has left, before anything else changes it."""
    tally.left_over += _outlived(pid)
    tally.not_crashed += launch.state(run) != "crashed" or not launch.reason(run)
    with _copied(run) as db:
        tally.integrity += db.execute("PRAGMA integrity_check").fetchone() != ("ok",)
        whole, last = _whole_steps(db)
        from_steps = _resumed(db)
    tally.half_steps += not whole
    tally.not_resumed += from_steps[course.resumed :] not in ([], [course.newest])
    found = checkpoints.list_checkpoints(run.checkpoints)
    for checkpoint in found:
        try:
            checkpoint.read_state()
        except checkpoints.CheckpointError:
            tally.torn_checkpoints += 1
    newest = found[0].step if found else 0
    every = run.read_config().run.checkpoint_every
    tally.steps_redone += last - newest
    tally.lost_more += not 0 <= last - newest <= every
    course.newest, course.resumed = newest, len(from_steps)


def _outlived(session: int) -> int:
    """Return a session's processes that are still there after killed ones have had a moment to end."""
    deadline = time.monotonic() + 5
    while left := [pid for pid in psutil.pids() if _session(pid) == session]:
        if time.monotonic() > deadline:
            return len(left)
        time.sleep(0.01)
    return 0


def _session(pid: int) -> int | None:
    try:
        return None if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE else os.getsid(pid)
    except (OSError, psutil.Error):
        return None


@contextmanager
def _copied(run: RunDirectory) -> Iterator[sqlite3.Connection]:
    """Open a copy of the database: opened in place, it would be repaired before the resumed trainer has to do it."""
    with tempfile.TemporaryDirectory() as folder:
        for path in (run.database, run.write_ahead):
            if path.exists():
                shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder, run.database.name))) as db:
            yield db


def _resumed(db: sqlite3.Connection) -> list[int]:
    """Return the steps that the run was resumed from, by its events."""
    if not db.execute("PRAGMA user_version").fetchone()[0]:
        return []
    rows = db.execute("SELECT data FROM events WHERE kind = 'resumed' ORDER BY id")
    return [json.loads(data)["from_step"] for (data,) in rows]


def _whole_steps(db: sqlite3.Connection) -> tuple[bool, int]:
    """Return whether every step up to the last is recorded completely, and the last step."""
    if not db.execute("PRAGMA user_version").fetchone()[0]:
        return True, 0
    steps = [step for (step,) in db.execute("SELECT step FROM metrics ORDER BY step")]
    parts = [
        db.execute(f"SELECT step, COUNT(*) FROM {table} GROUP BY step ORDER BY step").fetchall()
        for table in ("histograms", "samples")
    ]
    whole = steps == list(range(1, len(steps) + 1))
    whole &= all([step for step, _ in part] == steps and len({count for _, count in part}) <= 1 for part in parts)
    return whole, len(steps)


def differences(run: RunDirectory, undisturbed: RunDirectory) -> list[str]:
    """Return the differences of a finished run from the undisturbed one."""
    found = [f"it is {state}" for state in [launch.state(run)] if state != "finished"]
    with closing(sqlite3.connect(run.database)) as db:
        if db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            found.append("the database is damaged")
    found += [what for what, of in FACTS.items() if of(run) != of(undisturbed)]
    return found


def _weights(run: RunDirectory) -> dict[str, bytes]:
    """Return the last checkpoint's adapter and optimiser tensors as bytes."""
    newest = checkpoints.list_checkpoints(run.checkpoints)[0]
    return {path.name: path.read_bytes() for path in sorted(newest.path.rglob("*.safetensors"))} | {
        "step": str(newest.step).encode()
    }


def _metrics(run: RunDirectory) -> list[tuple[int, dict[str, Any]]]:
    return [
        (step, {key: value for key, value in data.items() if not key.startswith(CLOCKS)})
        for step, _, data in RunReader(run).poll().metrics
    ]


def _samples(run: RunDirectory) -> list[Any]:
    with closing(sqlite3.connect(run.database)) as db:
        return db.execute(
            "SELECT step, row, is_reference, prompt, completion, reward, advantage FROM samples"
            " ORDER BY step, row, is_reference, id"
        ).fetchall()


def _evaluations(run: RunDirectory) -> list[Any]:
    return [(step, data | {"seconds": None}) for step, _, data in RunReader(run).poll().evaluations]


FACTS: dict[str, Callable[[RunDirectory], Any]] = {
    "the last checkpoint's tensors differ": _weights,
    "metrics differ, or a step is missing or doubled": _metrics,
    "completions differ, or some are missing or doubled": _samples,
    "evaluations differ": _evaluations,
}


def _measure(run: RunDirectory) -> dict[str, Profile]:
    """Let the undisturbed run finish, and return how long its phases last."""
    written = run.path / "profiles"
    profiler = Profiler()

    def write() -> None:
        written.write_text(json.dumps({name: asdict(profile) for name, profile in profiler.profiles.items()}))

    _, status = _train(run, profiler, write)
    assert status == 0, run.log.read_text()
    profiles = {name: Profile(**data) for name, data in json.loads(written.read_text()).items()}
    assert all(profile.seconds for profile in profiles.values()), f"a phase was never entered: {profiles}"
    return profiles


def _train(run: RunDirectory, watch: Watch, after: Callable[[], None] = lambda: None) -> tuple[int, int]:
    """Run a trainer in its own process and session; return its pid, and its exit status or minus its signal."""
    pid = os.fork()
    if not pid:
        _become_trainer(run, watch, after)
    deadline = time.monotonic() + PATIENCE
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return pid, os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGABRT)  # faulthandler writes where it hangs
        time.sleep(0.005)


def _become_trainer(run: RunDirectory, watch: Watch, after: Callable[[], None]) -> None:
    """Become a trainer as ``launch`` starts one: own session, no input, output in the log. Does not return."""
    status = 70
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(run.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(run.path)
        import faulthandler

        faulthandler.enable()
        install(watch, run.checkpoints)
        from aapo_desk.training.__main__ import main

        status = main([str(run.path)])
        after()
    except BaseException:  # noqa: BLE001 - this process must not continue as its parent would
        traceback.print_exc()
    finally:
        os._exit(status)


def _import() -> None:
    """Import what takes a trainer seconds. None of it may start a thread, which a fork would not copy."""
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads: a fork would be of one of them only"


def table(result: Result) -> Sequence[str]:
    """Return a table of the phases, kills and losses."""
    names = list(asdict(Tally()))
    header = ["phase", *(name.replace("_", " ") for name in names)]
    rows = [[phase, *(str(getattr(tally, name)) for name in names)] for phase, tally in result.tallies.items()]
    rows.append(["all", *(str(sum(getattr(tally, name) for tally in result.tallies.values())) for name in names)])
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in [header, *rows]
    ]
    return [*lines, f"{result.runs} runs; other than the undisturbed one: {len(result.different)}", *result.different]
