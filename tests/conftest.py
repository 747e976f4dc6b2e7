"""Fixtures that several tests need: a home of their own, a language model small enough to train in milliseconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.hub.offline import LIBRARIES, VARIABLE
from tests.hub_server import Hub, serving
from tests.tiny_model import make

# Each worker of a parallel run has its share of the cores: threads that wait for others are many times slower. The
# process that starts the workers sets nothing, since they would inherit it.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))


@pytest.fixture(autouse=True)
def connected_again() -> Iterator[None]:
    """A command that was told --offline inside a test says so to its whole process: it ends with the test."""
    before = {name: os.environ.get(name) for name in (VARIABLE, *LIBRARIES)}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(autouse=True)
def as_many_threads_again() -> Iterator[None]:
    """Restore torch's number of threads after a test: the tests beside it need the other cores."""
    torch = sys.modules.get("torch")  # imported by those who need it
    before = torch.get_num_threads() if torch else 0
    yield
    if torch and torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture
def desk_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for runs and an empty place for one's own presets, for this process and those it starts."""
    home = tmp_path / "home"
    monkeypatch.setenv("AAPO_DESK_HOME", str(home))
    monkeypatch.setenv("AAPO_DESK_CONFIG", str(tmp_path / "settings"))
    return home


@pytest.fixture
def served_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, and an empty cache in ``tmp_path / "hf"``."""
    with serving(tmp_path / "hf", monkeypatch) as hub:
        yield hub


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer Llama (hidden size 64, 300 tokens), its tokenizer and a chat template.

    The same weights and tokens each time. ``<|im_end|>`` ends a text, ``<|pad|>`` fills up.
    """
    folder = tmp_path_factory.mktemp("tiny-model")
    make(folder)
    return folder


@pytest.fixture
def tiny_config(tiny_model: Path) -> dict[str, Any]:
    """A configuration as a preset would hold it: the tiny model on sums, three quick steps on the CPU.

    It never answers right, so its reward is for letters up to m: groups differ, and there is something to learn. Its
    workers start in a moment, where those that verify answers take a second of each run.
    """
    return {
        "model": {"id": str(tiny_model), "device": "cpu", "quantization": "none"},
        "lora": {"r": 4, "alpha": 8},
        "task": {"source": "arithmetic", "held_out": 8, "max_prompt_tokens": 200},
        "rewards": [{"name": "format", "options": {"pattern": "[a-m]"}}],
        "rollout": {"prompts_per_step": 2, "group_size": 4, "max_new_tokens": 6},
        "optimizer": {"learning_rate": 1e-3},
        "run": {"steps": 3, "checkpoint_every": 1},
        "evaluation": {"problems": 8},
    }
