"""Runs on a disk of a few megabytes: ``unshare -rUm python -m tests.faults.full_disk MODEL FOLDER``.

It runs in namespaces of its own, where it may mount a real disk. The result is printed as one JSON document.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import launch
from aapo_desk.store import RunDirectory, RunReader, create_run
from aapo_desk.training import pauses
from aapo_desk.training.__main__ import main as trainer
from tests.faults.injecting import before_step, configuration, kinds, learned, onlooker, until_paused

MEGABYTES = 4


def digest(run: RunDirectory) -> str:
    return hashlib.sha256(repr(learned(run)).encode()).hexdigest()


def fill(folder: Path) -> None:
    """Fill all the space that is left on the disk."""
    with (folder / "filler").open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 512)
        except OSError:
            return


def empty(folder: Path) -> None:
    (folder / "filler").unlink()


def mount(folder: Path, *options: str) -> None:
    subprocess.run(["mount", *options, "tmpfs", str(folder)], check=True, capture_output=True)


def filled(model: Path, disk: Path, name: str, then: Callable[[RunDirectory], None]) -> dict[str, Any]:
    """Train a run whose disk fills up in the third step; return what it showed then and how it ended."""
    run = create_run(configuration(model), name)
    said: dict[str, Any] = {}

    def look() -> None:
        said["message"] = until_paused(run)
        said["state"] = launch.state(run)
        said["steps seen"] = len(RunReader(run).poll().metrics)
        then(run)

    with pytest.MonkeyPatch.context() as patch, onlooker(run, look):
        before_step(3, lambda: fill(disk), patch)
        said["status"] = trainer([str(run.path)])
    said |= {"ended": run.read_status()["state"], "events": kinds(run), "path": str(run.path)}
    return said


def refusal(work: Callable[[], object]) -> str:
    try:
        work()
    except (launch.LaunchError, OSError) as error:
        return str(error)
    return "nothing was refused"


def main(model: Path, disk: Path) -> dict[str, Any]:
    mount(disk, "-t", "tmpfs", "-o", f"size={MEGABYTES}m")
    os.environ["AAPO_DESK_HOME"] = str(disk)
    pauses.RETRY_SECONDS = 0.1
    found: dict[str, Any] = {"emptied": filled(model, disk, "emptied", lambda _: empty(disk))}
    run = RunDirectory(Path(found["emptied"]["path"]))
    found["emptied"]["learned"] = digest(run)

    found["stopped"] = filled(model, disk, "stopped", lambda run: launch.request(run, "stop"))
    stopped = RunDirectory(Path(found["stopped"]["path"]))
    fill(disk)
    found["stopped"]["resume"] = refusal(lambda: launch.resume(stopped))
    found["read when full"] = len(RunReader(run).poll().metrics)
    empty(disk)
    found["stopped"]["status"] = trainer([str(stopped.path)])
    found["stopped"]["learned"] = digest(stopped)

    mount(disk, "-o", "remount,ro")
    found["read-only"] = {
        "read": len(RunReader(run).poll().metrics),
        "resume": refusal(lambda: launch.resume(stopped, steps=9)),
        "status": trainer([str(stopped.path)]),
    }
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))  # noqa: T201
