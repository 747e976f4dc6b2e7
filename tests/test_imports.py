"""Fast starts stay light: the command line and the screen load nothing of the GPU stack."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aapo_desk.config import resolve
from aapo_desk.launch.child import environment
from aapo_desk.store import RunWriter, StepRecord, create_run
from tests.shapes import QWEN3_8B

HEAVY = {"torch", "transformers", "peft", "datasets", "sympy", "bitsandbytes", "accelerate", "math_verify"}


def imported(*arguments: str) -> set[str]:
    """The top-level packages that Python loads for a command line."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = re.findall(r"^import time: .*\| +([\w.]+)$", done.stderr, flags=re.MULTILINE)
    assert "aapo_desk" in names
    return {name.partition(".")[0] for name in names}


@pytest.fixture
def several_runs(desk_home: Path) -> int:
    config = resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}})
    for number in range(5):
        run = create_run(config, f"run-{number}")
        writer = RunWriter(run)
        for step in range(1, 4):
            writer.write_step(StepRecord(step, 0.0, {"reward": 0.5}, {}, []))
        writer.close()
    return 5


@pytest.mark.parametrize(
    "module",
    [
        "aapo_desk.cli.app",
        "aapo_desk.tui.app",
        "aapo_desk.launch",
        "aapo_desk.store",
        "aapo_desk.tui.screens.chat, aapo_desk.chat",
    ],
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    assert not imported("-c", f"import {module}") & HEAVY


@pytest.mark.parametrize(
    "command",
    [
        ["runs", "--json"],
        ["presets", "--json"],
        ["presets", "check", "demo"],
        ["runs", "show", "last"],
        ["compare", "run-0", "run-1", "--json"],
        ["--help"],
    ],
)
@pytest.mark.usefixtures("several_runs")
def test_the_plain_commands_load_nothing_heavy_and_no_screen(command: list[str]) -> None:
    assert not imported("-m", "aapo_desk", *command) & (HEAVY | {"textual", "matplotlib"})


def test_fit_answers_without_anything_heavy(desk_home: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(QWEN3_8B))
    preset = tmp_path / "large.yaml"
    preset.write_text(f"model: {{id: {model}}}\ntask: {{source: arithmetic}}\n")
    assert not imported("-m", "aapo_desk", "fit", str(preset), "--vram", "4") & (HEAVY | {"textual", "huggingface_hub"})
