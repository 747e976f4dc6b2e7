"""The trainer of the bit-for-bit tests on CUDA works as a process; here on the CPU."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import launch
from aapo_desk.config import resolve
from aapo_desk.store import RunReader
from tests.determinism import TRAINER


@pytest.mark.slow
def test_a_deterministic_trainer_finishes_a_run(
    desk_home: Path, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    run = launch.start(resolve(tiny_config, {"run.steps": 1}), "run", TRAINER)
    deadline = time.monotonic() + 120
    while launch.state(run) != "finished":
        assert time.monotonic() < deadline, run.log.read_text()[-2000:]
        time.sleep(0.1)
    assert [step for step, _, _ in RunReader(run).poll().metrics] == [1]
