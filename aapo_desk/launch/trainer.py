"""A run's trainer process: its state, starting it, sending it commands, ending it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any, Literal

from aapo_desk.config import ConfigError, Problem, RunConfig
from aapo_desk.launch.child import environment, python
from aapo_desk.launch.errors import LaunchError
from aapo_desk.launch.preflight import with_absolute_paths
from aapo_desk.launch.starting import bring, find_start
from aapo_desk.store import RunDirectory, RunReader, create_run, planned_budget, read_command, write_atomically
from aapo_desk.store.full import is_full, trouble
from aapo_desk.store.locks import is_held

Command = Literal["pause", "resume", "stop", "checkpoint"]
COMMANDS: tuple[Command, ...] = ("pause", "resume", "stop", "checkpoint")
LIVE = frozenset({"starting", "running", "paused", "stopping"})

# A new process counts as starting for this long without its lock, since Python may have to load from a cold disk.
# A heartbeat from another host, which is written once a second, counts as fresh for as long.
SECONDS_TO_TAKE_THE_LOCK = 30.0
# How long a launch waits for readers, which hold the lock for a moment.
SECONDS_TO_WAIT_FOR_READERS = 1.0
SECONDS_TO_WAIT_FOR_AN_END = 5.0
LOG_MARK = "--- starting the trainer, "
FIRST_WORDS = "starting the trainer"  # The message in status.json until the trainer writes its own.


def is_alive(run: RunDirectory) -> bool:
    """Return whether a trainer holds the run's lock. This is harmless: a trainer that is just starting tries again."""
    return is_held(run.lock)


def state(run: RunDirectory) -> str:
    """Return the state in status.json, or "crashed" if that is a live state but no trainer is alive."""
    # Check the lock first: a trainer writes its last state before it releases the lock, so this order cannot miss it.
    return _state(run, is_alive(run))


def _state(run: RunDirectory, alive: bool) -> str:
    status = run.read_status()
    claimed = str(status.get("state", "starting"))
    if alive or claimed not in LIVE:
        return claimed
    return claimed if _may_live(run, claimed, status) else "crashed"


def _may_live(run: RunDirectory, claimed: str, status: dict[str, Any]) -> bool:
    """Return whether there may be a trainer whose lock is not visible: one that is starting, or on another host.

    Many network file systems do not share locks between hosts, so there a fresh heartbeat must suffice.
    """
    if not status:
        with contextlib.suppress(OSError):  # The run was created, but its process may not have been started yet.
            return _is_now(run.config.stat().st_mtime)
        return False
    if not _is_now(float(status.get("heartbeat", 0))):
        return False
    return status.get("host") != socket.gethostname() or (claimed == "starting" and _exists(int(status.get("pid", 0))))


def _is_now(moment: float) -> bool:
    """Return whether a time is recent. A time far in the future does not count: some clock was changed."""
    return abs(time.time() - moment) <= SECONDS_TO_TAKE_THE_LOCK


def _exists(pid: int) -> bool:
    """Return whether a process with this id runs on this machine; a zombie does not count."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def reason(run: RunDirectory) -> str | None:
    """Return in one line why a run failed or crashed; None if it did neither."""
    current = state(run)
    if current not in ("failed", "crashed"):
        return None
    status = run.read_status()
    if current == "failed" and status.get("message"):
        return str(status["message"])
    return _last_error(run, died_young=status.get("message") == FIRST_WORDS) or (
        "the trainer ended without an error message: it was killed, the system ran out of memory, or the machine "
        "went down"
    )


def _last_error(run: RunDirectory, died_young: bool) -> str | None:
    """Return the error at the end of the last start's log; None if there is none."""
    lines = list(RunReader(run).log_tail())
    marks = [index for index, line in enumerate(lines) if line.startswith(LOG_MARK)]
    lines = [line for line in lines[marks[-1] + 1 if marks else 0 :] if line.strip()]
    tracebacks = [index for index, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    after = lines[tracebacks[-1] + 1 :] if tracebacks else []
    error = next((line for line in after if re.match(r"[\w.]+(:|$)", line)), None)
    error = error or next((line for line in lines if line.startswith("Fatal Python error")), None)
    if error is None and died_young and lines:
        error = lines[-1]  # An error message of the interpreter itself.
    return error


def start(
    config: RunConfig,
    name: str | None = None,
    command: Sequence[str] = (),
    fill: Callable[[RunDirectory], None] | None = None,
    note: Callable[[RunDirectory], None] = lambda _: None,
) -> RunDirectory:
    """Create a run, start its trainer and return the run at once.

    If the trainer dies while starting, ``state`` shows that and ``reason`` tells why.

    Args:
        config: The run's configuration.
        name: The run's name; by default its id.
        command: The command to run, to which the run's folder is appended; by default this package's trainer.
        fill: Puts the files that the run starts from into its folder; by default copies the initial adapter.
        note: Called with the run before its folder becomes visible as a run. Whatever it records is therefore known
            for every existing run, no matter when this process is killed.

    Raises ConfigError for an invalid name or initial adapter, LaunchError if no process can be started.
    """
    if fill is None and (adapter := find_start(config)):
        lora = config.lora.model_copy(update={"start_from": str(adapter)})
        config = config.model_copy(update={"lora": lora})
        fill = partial(bring, adapter)

    def prepare(run: RunDirectory) -> None:
        if fill is not None:
            fill(run)
        note(run)

    run = create_run(with_absolute_paths(config), name, prepare)
    try:
        with _alone(run):
            _spawn(run, command)
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    return run


def resume(run: RunDirectory, command: Sequence[str] = (), steps: int | None = None) -> None:
    """Unpause a paused trainer, or start a trainer that continues from the last checkpoint.

    ``steps`` sets a new total number of steps, also for a run that has finished.
    Raises LaunchError if the run is already running or has finished, ConfigError if ``steps`` is not more than the
    steps already done.
    """
    current = state(run)
    if steps is not None and current in LIVE:
        raise LaunchError(
            f"run {run.name} is {current}, but its number of steps can only be changed while it is stopped; "
            f"stop it first with: aapo-desk stop {run.id}"
        )
    if current == "paused" or (current == "running" and _pause_pending(run)):
        request(run, "resume")
        return
    if current in LIVE:
        raise LaunchError(f"run {run.name} is {current} already")
    with _alone(run):
        current = _state(run, alive=False)
        if current in LIVE:
            raise LaunchError(f"run {run.name} is {current} already")
        if steps is not None:
            _replan(run, steps)
        if current == "finished" and (run.replanned_steps() or 0) <= int(run.read_status().get("step", 0)):
            raise LaunchError(
                f"run {run.name} has finished all its steps; to add more: aapo-desk resume {run.id} --steps N"
            )
        for left_over in run.commands.glob("*.json"):  # These commands were meant for the previous trainer.
            left_over.unlink(missing_ok=True)
        _spawn(run, command)


def _replan(run: RunDirectory, steps: int) -> None:
    """Set a new total number of steps. Raises ConfigError for a number that the run cannot end at."""
    last = RunReader(run).last_metrics()
    done = last[0] if last else 0
    if steps <= done:
        message = f"run {run.name} has done {done} steps; give a larger total number of steps"
        raise ConfigError(Problem("--steps", message, steps))
    warmup = run.read_config().optimizer.warmup_steps
    if steps < warmup:
        message = f"is less than optimizer.warmup_steps ({warmup}); the learning rate would never reach its full value"
        raise ConfigError(Problem("--steps", message, steps))
    run.replan(steps)


def request(run: RunDirectory, command: Command) -> None:
    """Send the trainer a command, which it carries out between two steps. Raises LaunchError if no trainer is alive."""
    current = state(run)
    if current not in LIVE:
        raise LaunchError(f"run {run.name} is not running ({current}), so it cannot be asked to {command}")
    number = uuid.uuid4().hex
    try:
        write_atomically(run.commands / f"{number}.json", json.dumps({"command": command, "time": time.time()}))
    except OSError as error:
        if not is_full(error, run.commands):
            raise
        # An empty file fits on a full disk; its name holds the command.
        (run.commands / f"{number}.{command}.json").touch(mode=0o600)


def kill(run: RunDirectory) -> None:
    """Kill the trainer and its workers; the work since the last checkpoint is lost. Raises LaunchError."""
    if state(run) not in LIVE:
        raise LaunchError(f"run {run.name} is not running")
    status = run.read_status()
    pid, host = int(status.get("pid", 0)), status.get("host")
    if host != socket.gethostname():
        raise LaunchError(f"run {run.name} runs on {host}; end it there")
    try:
        if pid <= 1 or os.getpgid(pid) != pid:  # A trainer leads its own session, so this is another process.
            raise LaunchError(f"run {run.name} has no trainer process on this machine that could be ended")
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def remove(run: RunDirectory) -> None:
    """Delete a run with all its checkpoints. Raises LaunchError while its trainer is alive."""
    refusal = f"run {run.name} is running; stop it first with: aapo-desk stop {run.id}"
    if state(run) in LIVE:
        raise LaunchError(refusal)
    with _alone(run):
        if _state(run, alive=False) in LIVE:
            raise LaunchError(refusal)
        run.config.unlink(missing_ok=True)  # Without config.json it is no longer a run, even if the rest fails.
        shutil.rmtree(run.path)


@contextmanager
def _alone(run: RunDirectory) -> Iterator[None]:
    """Hold the run's lock for a moment, so that only one of two simultaneous launches continues.

    The new trainer waits until the lock is released, and by then the first status is written. Raises LaunchError.
    """
    try:
        run.lock.touch(mode=0o600)
        held = run.lock.open("ab")
    except OSError as error:
        raise LaunchError(trouble(error, run.path) or f"the run's lock cannot be taken: {error}") from error
    with held as file:
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _go_on_waiting(run, time.monotonic() - began)
                time.sleep(0.05)
        yield


def _go_on_waiting(run: RunDirectory, waited: float) -> None:
    """Raise LaunchError if waiting longer for the lock is pointless.

    A reader holds it for microseconds, a trainer that is ending for some seconds, and one that trains indefinitely.
    """
    claimed = run.read_status().get("state")
    if claimed in LIVE and waited > SECONDS_TO_WAIT_FOR_READERS:
        raise LaunchError(f"run {run.name} is {claimed} already")
    if waited > SECONDS_TO_WAIT_FOR_AN_END:
        raise LaunchError(f"the trainer of run {run.name} is still ending; try again in a moment")


def _spawn(run: RunDirectory, command: Sequence[str]) -> None:
    """Start the trainer in a session of its own and write the first status. It must be called inside ``_alone``."""
    arguments = [*(command or python("aapo_desk.training")), str(run.path)]
    try:
        run.log.touch(mode=0o600)
        with run.log.open("ab") as log:
            log.write(f"{LOG_MARK}{time.strftime('%Y-%m-%d %H:%M:%S')} ---\n".encode())
            log.flush()
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=run.path,
                env=environment(),
                start_new_session=True,
            )
    except OSError as error:
        why = trouble(error, run.path) or error.strerror or error
        raise LaunchError(f"the trainer cannot be started: {why}") from error
    # A thread waits for the process, which would otherwise stay a zombie after its end while this program runs.
    threading.Thread(target=process.wait, name=f"trainer {run.id}", daemon=True).start()
    now = time.time()
    before = run.read_status()
    status = {
        "state": "starting",
        "phase": "preparing",
        "step": before.get("step", 0),
        "steps": run.read_settings().get("run", {}).get("steps", 0),
        "budget": asdict(budget) if (budget := planned_budget(run)) else None,
        "progress": None,
        "message": FIRST_WORDS,
        "heartbeat": now,
        "started": now,
        "pid": process.pid,
        "host": socket.gethostname(),
    }
    try:
        write_atomically(run.status, json.dumps(status), durable=False)
    except OSError as error:
        if not is_full(error, run.path):  # The trainer that was just started reports a full disk itself.
            raise


def _pause_pending(run: RunDirectory) -> bool:
    return any(read_command(path) == "pause" for path in run.commands.glob("*.json"))
