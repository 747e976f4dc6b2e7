"""The backend of a run: unsloth if configured and working, else transformers, which is reported and recorded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import RunConfig, resolve
from aapo_desk.models import unsloth
from aapo_desk.models.unsloth import UnslothError
from aapo_desk.store import RunReader, RunWriter, create_run
from aapo_desk.training.backend import StartOver, give_up, settled

ABSENT = UnslothError("is not installed (pip install 'aapo-desk[unsloth]')", imported=False)
BROKEN = UnslothError("2026.10.7 does not work here: NotImplementedError: needs a GPU", imported=True)


@pytest.fixture
def config(tiny_config: dict[str, Any]) -> RunConfig:
    return resolve(tiny_config, {"model.backend": "unsloth"})


@pytest.fixture
def store(desk_home: Path, config: RunConfig) -> Iterator[RunWriter]:
    writer = RunWriter(create_run(config))
    yield writer
    writer.close()


def said(store: RunWriter) -> list[str]:
    return [event.data["message"] for event in RunReader(store.run).poll().events]


def imports(monkeypatch: pytest.MonkeyPatch, outcome: str | UnslothError) -> None:
    """Let ``bring_in`` return this version or raise this error."""

    def bring_in(device: str) -> str:
        if isinstance(outcome, UnslothError):
            raise outcome
        return outcome

    monkeypatch.setattr(unsloth, "bring_in", bring_in)


@pytest.mark.parametrize("asked", ["auto", "transformers"])
def test_it_is_transformers_unless_unsloth_is_named(
    store: RunWriter, tiny_config: dict[str, Any], asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports(monkeypatch, "2026.10.9")
    assert settled(resolve(tiny_config, {"model.backend": asked}), store) == "transformers"
    assert said(store) == []


def test_unsloth_is_said_to_be_used_and_a_resumed_run_keeps_to_it(
    store: RunWriter, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports(monkeypatch, "2026.10.9")
    assert settled(config, store) == settled(config, store) == "unsloth"
    assert len(said(store)) == 1
    assert said(store)[0].startswith("unsloth 2026.10.9 loads and runs the model; reference rows")
    imports(monkeypatch, "2026.11.1")
    assert settled(config, store) == "unsloth"
    assert said(store)[1:] == ["the run began with unsloth 2026.10.9 and continues with 2026.11.1"]


def test_absent_the_run_goes_on_with_transformers_and_keeps_to_that(
    store: RunWriter, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports(monkeypatch, ABSENT)
    assert settled(config, store) == "transformers"
    assert said(store) == [
        "unsloth is not installed (pip install 'aapo-desk[unsloth]'): the run continues with transformers"
    ]
    imports(monkeypatch, "2026.10.9")
    assert settled(config, store) == "transformers"
    assert len(said(store)) == 1


def test_where_it_has_left_traces_the_process_starts_over_with_transformers(
    store: RunWriter, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports(monkeypatch, BROKEN)
    with pytest.raises(StartOver):
        settled(config, store)
    assert settled(config, store) == "transformers"
    assert said(store) == [f"unsloth {BROKEN}: the run continues with transformers"]


def test_one_that_fails_later_is_given_up_too(
    store: RunWriter, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports(monkeypatch, "2026.10.9")
    assert settled(config, store) == "unsloth"
    give_up(store, UnslothError("cannot load owner/model: ValueError: no", imported=True))
    assert settled(config, store) == "transformers"
    assert said(store)[-1] == "unsloth cannot load owner/model: ValueError: no: the run continues with transformers"


@pytest.mark.slow
def test_a_run_trains_to_its_end_beside_a_broken_unsloth(
    desk_home: Path, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    # It fails halfway, when it has already patched other libraries.
    (spoilt / "unsloth.py").write_text(
        "import os, json\nos.environ['LEFT'] = '1'\njson.loads = None\nraise OSError('no driver')"
    )
    asked = {"model.backend": "unsloth", "run.steps": 1, "evaluation.problems": 0}
    run = create_run(resolve(tiny_config, asked))
    path = f"{spoilt}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-m", "aapo_desk.training", str(run.path)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    notices = [event.data["message"] for event in RunReader(run).poll().events if event.kind == "notice"]
    assert len(notices) == 1
    assert "does not work here: OSError: no driver" in notices[0]
    assert notices[0].endswith("the run continues with transformers")
    assert run.read_status()["state"] == "finished"
    assert (run.checkpoints / "step_000001").is_dir()
