"""Kill a real trainer once in each phase. Many more kills by hand: ``python -m tests.faults``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aapo_desk.launch.child import environment
from tests.faults.phases import PHASES


@pytest.mark.slow
def test_a_run_killed_in_each_phase_goes_on_and_ends_as_one_that_was_left_alone(tiny_model: Path) -> None:
    arguments = ["--kills", "1", "--seed", "3", "--model", str(tiny_model), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *arguments],
        cwd=Path(__file__).parents[2],
        env=environment() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    assert said["different"] == [], "adapter, optimiser, metrics, completions, evaluations"
    for tally in said["phases"].values():
        tally.pop("steps_redone")
    unharmed = dict.fromkeys(said["phases"]["rollout"], 0) | {"kills": 1}
    assert said["phases"] == dict.fromkeys(PHASES, unharmed)
    assert done.returncode == 0
