"""The trainer's messages while it downloads its model from a hub on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import resolve
from aapo_desk.hub import fetching
from aapo_desk.store import RunDirectory, RunWriter, create_run
from aapo_desk.training.control import Control, StopRequested
from aapo_desk.training.setup import prepared
from tests.hub_server import Hub, folder_files


@pytest.fixture
def run(
    served_hub: Hub, desk_home: Path, tiny_model: Path, tiny_config: dict[str, Any], monkeypatch: Any
) -> RunDirectory:
    monkeypatch.setattr(fetching, "BIG", 100_000)
    served_hub.add("models/owner/tiny", folder_files(tiny_model))
    return create_run(resolve(tiny_config | {"model": tiny_config["model"] | {"id": "owner/tiny"}}))


class Heard(Control):
    """Collects each state that status.json would have."""

    def say(self, **changes: Any) -> None:
        super().say(**changes)
        said.append(dict(self.status))


said: list[dict[str, Any]] = []


def test_status_tells_how_far_the_weights_are(run: RunDirectory) -> None:
    said.clear()
    with Heard(run, 3) as control:
        store = RunWriter(run)
        try:
            with prepared(run.read_config(), store, control):
                pass
        finally:
            store.close()
    fetching_it = [status for status in said if str(status["message"]).startswith("fetching the model owner/tiny: ")]
    assert {status["state"] for status in fetching_it} == {"starting"}
    assert {status["phase"] for status in fetching_it} == {"preparing"}
    assert fetching_it[-1]["progress"] == 1.0
    assert said[-1]["progress"] is None


def test_a_stop_ends_the_fetching(run: RunDirectory) -> None:
    with Heard(run, 3) as control:
        store = RunWriter(run)
        control.stop.set()
        try:
            with pytest.raises(StopRequested), prepared(run.read_config(), store, control):
                pass
        finally:
            store.close()
