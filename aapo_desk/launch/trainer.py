"""The trainer process of a run: whether it lives, starting it, asking it for something, ending it."""

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

# A new process is believed to be coming up for this long before it holds its lock: Python may start from a cold disk.
# A heartbeat from another host, which comes once a second, is believed as long.
SECONDS_TO_TAKE_THE_LOCK = 30.0
# How long a launch waits for those who hold the lock for a moment.
SECONDS_TO_WAIT_FOR_READERS = 1.0
SECONDS_TO_WAIT_FOR_AN_END = 5.0
LOG_MARK = "--- starting the trainer, "
FIRST_WORDS = "starting the trainer"  # status.json's message until the trainer says something itself


def is_alive(run: RunDirectory) -> bool:
    """Whether a trainer holds the run's lock. Asking disturbs nobody: a trainer that starts just then tries again."""
    return is_held(run.lock)


def state(run: RunDirectory) -> str:
    """status.json's state, or "crashed" where it claims to live and no trainer does."""
    # The lock first: a trainer writes its last state before it lets go, so this order cannot miss it.
    return _state(run, is_alive(run))


def _state(run: RunDirectory, alive: bool) -> str:
    status = run.read_status()
    claimed = str(status.get("state", "starting"))
    if alive or claimed not in LIVE:
        return claimed
    return claimed if _may_live(run, claimed, status) else "crashed"


def _may_live(run: RunDirectory, claimed: str, status: dict[str, Any]) -> bool:
    """Whether there may be a trainer whose lock is not seen: it is on its way to it, or on another host.

    Many network disks do not carry locks from host to host: there a fresh heartbeat has to do.
    """
    if not status:
        with contextlib.suppress(OSError):  # created, not yet spawned
            return _is_now(run.config.stat().st_mtime)
        return False
    if not _is_now(float(status.get("heartbeat", 0))):
        return False
    return status.get("host") != socket.gethostname() or (claimed == "starting" and _exists(int(status.get("pid", 0))))


def _is_now(moment: float) -> bool:
    """A time in the future is as wrong as one long past: a clock was set."""
    return abs(time.time() - moment) <= SECONDS_TO_TAKE_THE_LOCK


def _exists(pid: int) -> bool:
    """Whether a process of this number runs here; one that has ended and waits for its parent does not count."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def reason(run: RunDirectory) -> str | None:
    """Why a run failed or crashed, in one line; None where it did neither."""
    current = state(run)
    if current not in ("failed", "crashed"):
        return None
    status = run.read_status()
    if current == "failed" and status.get("message"):
        return str(status["message"])
    return _last_error(run, died_young=status.get("message") == FIRST_WORDS) or (
        "the trainer ended without a word: it was killed, memory ran out or the machine went down"
    )


def _last_error(run: RunDirectory, died_young: bool) -> str | None:
    """The error at the end of the log of the last start."""
    lines = list(RunReader(run).log_tail())
    marks = [index for index, line in enumerate(lines) if line.startswith(LOG_MARK)]
    lines = [line for line in lines[marks[-1] + 1 if marks else 0 :] if line.strip()]
    tracebacks = [index for index, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    after = lines[tracebacks[-1] + 1 :] if tracebacks else []
    error = next((line for line in after if re.match(r"[\w.]+(:|$)", line)), None)
    error = error or next((line for line in lines if line.startswith("Fatal Python error")), None)
    if error is None and died_young and lines:
        error = lines[-1]  # the interpreter's own complaint
    return error


def start(
    config: RunConfig,
    name: str | None = None,
    command: Sequence[str] = (),
    fill: Callable[[RunDirectory], None] | None = None,
    note: Callable[[RunDirectory], None] = lambda _: None,
) -> RunDirectory:
    """A new run and its trainer. Raises ConfigError for a bad name or an adapter to start from that is none,
    LaunchError where no process can be started.

    Gives back at once: a trainer that dies while it starts is seen by ``state``, its reason by ``reason``.
    ``command`` is what runs, the run's folder comes after it; by default this package's trainer.
    ``fill`` puts into the folder what the run begins with; by default the adapter that the configuration names.
    ``note`` is told of the folder while it is no run yet: what it writes down is known of every run that there is, at
    whatever moment this process is killed.
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
    """Unpause a paused trainer, or start one that goes on from the last checkpoint.

    With ``steps`` the run is to take so many in all from now on, also one that has finished.
    Raises LaunchError where neither makes sense: it runs already, or it has finished; ConfigError for ``steps`` that
    are done already.
    """
    current = state(run)
    if steps is not None and current in LIVE:
        raise LaunchError(
            f"run {run.name} is {current}, and its plan is changed between two starts; "
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
                f"run {run.name} has finished all its steps; to go further: aapo-desk resume {run.id} --steps N"
            )
        for left_over in run.commands.glob("*.json"):  # meant for the trainer that is gone
            left_over.unlink(missing_ok=True)
        _spawn(run, command)


def _replan(run: RunDirectory, steps: int) -> None:
    """Raises ConfigError for a number of steps that the run cannot end at."""
    last = RunReader(run).last_metrics()
    done = last[0] if last else 0
    if steps <= done:
        message = f"run {run.name} has done {done} steps; give the number it is to have in all, more than that"
        raise ConfigError(Problem("--steps", message, steps))
    warmup = run.read_config().optimizer.warmup_steps
    if steps < warmup:
        message = f"is less than optimizer.warmup_steps ({warmup}); the learning rate would never arrive"
        raise ConfigError(Problem("--steps", message, steps))
    run.replan(steps)


def request(run: RunDirectory, command: Command) -> None:
    """Ask the trainer for something; it does it between two steps. Raises LaunchError when no trainer lives."""
    current = state(run)
    if current not in LIVE:
        raise LaunchError(f"run {run.name} is not running ({current}), so it cannot be asked to {command}")
    number = uuid.uuid4().hex
    try:
        write_atomically(run.commands / f"{number}.json", json.dumps({"command": command, "time": time.time()}))
    except OSError as error:
        if not is_full(error, run.commands):
            raise
        (run.commands / f"{number}.{command}.json").touch(mode=0o600)  # a name finds room where a text does not


def kill(run: RunDirectory) -> None:
    """End the trainer and its workers at once; what it did since its last checkpoint is lost. Raises LaunchError."""
    if state(run) not in LIVE:
        raise LaunchError(f"run {run.name} is not running")
    status = run.read_status()
    pid, host = int(status.get("pid", 0)), status.get("host")
    if host != socket.gethostname():
        raise LaunchError(f"run {run.name} runs on {host}; end it there")
    try:
        if pid <= 1 or os.getpgid(pid) != pid:  # the trainer leads its own session, so this is somebody else
            raise LaunchError(f"run {run.name} gives no process of this machine that could be ended")
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def remove(run: RunDirectory) -> None:
    """Delete a run with all its checkpoints. Raises LaunchError while its trainer lives."""
    refusal = f"run {run.name} is running; stop it first with: aapo-desk stop {run.id}"
    if state(run) in LIVE:
        raise LaunchError(refusal)
    with _alone(run):
        if _state(run, alive=False) in LIVE:
            raise LaunchError(refusal)
        run.config.unlink(missing_ok=True)  # no run any more for anyone, even if the rest fails half-way
        shutil.rmtree(run.path)


@contextmanager
def _alone(run: RunDirectory) -> Iterator[None]:
    """Hold the run's lock for a moment, so that of two launches at once only one goes on.

    The new trainer waits for it to be given back, and by then the first status is written. Raises LaunchError.
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
    """A reader holds the lock for microseconds, a trainer that ends for some seconds, one that trains for ever."""
    claimed = run.read_status().get("state")
    if claimed in LIVE and waited > SECONDS_TO_WAIT_FOR_READERS:
        raise LaunchError(f"run {run.name} is {claimed} already")
    if waited > SECONDS_TO_WAIT_FOR_AN_END:
        raise LaunchError(f"run {run.name} is still held by a trainer that ends; try again in a moment")


def _spawn(run: RunDirectory, command: Sequence[str]) -> None:
    """Start the trainer in a session of its own and write the first status. Call it inside ``_alone``."""
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
    # Somebody must take note of its end, or it stays behind as a zombie while this program goes on.
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
        if not is_full(error, run.path):  # else the trainer, which has just been started, tells
            raise


def _pause_pending(run: RunDirectory) -> bool:
    return any(read_command(path) == "pause" for path in run.commands.glob("*.json"))
