"""A real disk, full or read-only: a small tmpfs in namespaces of its own. Injected faults: ``test_injected``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aapo_desk.launch.child import environment
from aapo_desk.store import RunDirectory
from tests.faults.full_disk import digest
from tests.faults.injecting import STEPS


def mounts() -> bool:
    """Return whether this machine lets an ordinary user mount a disk in namespaces of their own."""
    if shutil.which("unshare") is None:
        return False
    tried = ["unshare", "-rUm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not mounts(), reason="no disk can be mounted here in a user namespace")
def test_runs_on_a_full_and_on_a_read_only_disk(
    tiny_model: Path, undisturbed: RunDirectory, desk_home: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["unshare", "-rUm", sys.executable, "-m", "tests.faults.full_disk", str(tiny_model), str(disk)],
        cwd=Path(__file__).parents[2],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    for run in (found["emptied"], found["stopped"]):
        assert run["message"].startswith(f"paused: the disk is full: {run['path']} has 0.0 MB free and needs 1.0 MB")
        assert run["state"] == "paused"
        assert run["status"] == 0
        assert run["learned"] == digest(undisturbed)
    assert found["emptied"]["ended"] == "finished"
    assert found["emptied"]["events"].count("disk_full") == 1
    assert found["stopped"]["ended"] == "stopped"
    assert "the disk is full" in found["stopped"]["resume"]
    assert found["read when full"] == STEPS
    assert found["read-only"]["read"] == STEPS
    assert found["read-only"]["status"] == 1
    for said in (found["read-only"]["resume"], done.stderr.splitlines()[-1]):
        assert "cannot be written: its disk is read-only; mount it writable" in said
