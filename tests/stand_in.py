"""A small script that keeps to the trainer's side of the run directory: lock, status, commands.

With it the tests of this side of that directory take no training. The script says "running" at once and obeys
requests; asked for a checkpoint it comes to its end. It has one worker, as trainers have.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import launch
from aapo_desk.launch import LaunchError
from aapo_desk.store import RunDirectory, list_runs

TRAINER = """
import fcntl, json, os, subprocess, sys, time
from pathlib import Path

run = Path(sys.argv[1])
lock = open(run / "run.lock", "a")
for _ in range(100):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except BlockingIOError:
        time.sleep(0.01)
else:
    sys.exit("the lock is held")
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
(run / "worker").write_text(str(worker.pid))
print("stdin", repr(sys.stdin.read()), "cwd", os.getcwd(), flush=True)
with open(run / "lives", "a") as lives:
    lives.write(f"{os.getpid()}\\n")

def say(state):
    aside = run / "aside"
    aside.write_text(json.dumps({"state": state, "step": 3, "steps": 9, "heartbeat": time.time(), "pid": os.getpid(),
                                 "host": os.uname().nodename, "message": "broken pipe" if state == "failed" else ""}))
    aside.replace(run / "status.json")

state = "running"
say(state)
ends = {"stop": "stopped", "checkpoint": "finished"}
while state not in ends.values():
    for path in (run / "commands").glob("*.json"):
        command = json.loads(path.read_text())["command"]
        path.unlink()
        state = {"pause": "paused", "resume": "running"} | ends
        state = state[command]
    say(state)
    time.sleep(0.02)
worker.kill()
"""
STAND_IN = (sys.executable, "-c", TRAINER)


def until(condition: Callable[[], Any], seconds: float = 15) -> Any:
    """Wait for what must come to pass."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)
    return value


def exists(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def lives(run: RunDirectory) -> list[int]:
    """The process numbers of the trainers that held the lock."""
    return [int(line) for line in (run.path / "lives").read_text().split()]


def settled(run: RunDirectory) -> bool:
    """Return whether no process is on its way to the run's lock."""
    status = run.read_status()
    return launch.is_alive(run) or status.get("state") != "starting" or not exists(status["pid"])


@pytest.fixture(autouse=True)
def nothing_left_running(desk_home: Path) -> Iterator[None]:
    yield
    for run in list_runs():
        until(partial(settled, run))
        with contextlib.suppress(LaunchError):  # it has just ended by itself
            launch.kill(run)
