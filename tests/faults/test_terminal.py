"""A terminal disappears together with the program in it that has started a trainer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from aapo_desk import launch
from aapo_desk.launch.child import environment
from aapo_desk.store import RunDirectory
from tests.stand_in import TRAINER, nothing_left_running, until

__all__ = ["nothing_left_running"]

STARTER = """
import fcntl, sys, termios, time
from aapo_desk import launch
from aapo_desk.config import resolve
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
config = resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}})
print(launch.start(config, command=[sys.executable, "-c", sys.argv[1]]).path, flush=True)
time.sleep(60)
"""


def test_a_terminal_that_disappears_takes_the_program_in_it_and_not_the_trainer(desk_home: Path) -> None:
    ours, theirs = os.openpty()
    arguments = [sys.executable, "-c", STARTER, TRAINER]
    with subprocess.Popen(
        arguments, stdin=theirs, stdout=subprocess.PIPE, env=environment(), start_new_session=True, text=True
    ) as starter:
        os.close(theirs)
        assert starter.stdout is not None
        run = RunDirectory(Path(starter.stdout.readline().strip()))
        until(lambda: launch.state(run) == "running")
        os.close(ours)
        assert starter.wait(30) == -signal.SIGHUP
    time.sleep(0.2)
    assert launch.state(run) == "running"
    launch.request(run, "stop")
    until(lambda: launch.state(run) == "stopped")
