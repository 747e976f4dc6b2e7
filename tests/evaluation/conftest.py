"""A run of the tiny model that has learned something, and files to evaluate it on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from aapo_desk import checkpoint as checkpoints
from aapo_desk.config import resolve
from aapo_desk.store import RunDirectory, create_run
from tests.policies import load_tiny


@pytest.fixture
def judged_by_letters(tiny_config: dict[str, Any]) -> dict[str, Any]:
    """The tiny model answers no sum right; whether its answer holds one of these letters differs."""
    return tiny_config | {"rewards": [{"name": "format", "options": {"pattern": "[a-h]"}}]}


@pytest.fixture
def tuned(desk_home: Path, tiny_model: Path, judged_by_letters: dict[str, Any]) -> RunDirectory:
    """A run with checkpoints of the steps 2 and 3, whose adapter is random: it answers otherwise than its base."""
    run = create_run(resolve(judged_by_letters), "tuned")
    policy = load_tiny(tiny_model)
    optimizer = torch.optim.AdamW(policy.adapter_parameters().values())
    for step in (2, 3):
        checkpoints.save(run.checkpoints, step, policy, optimizer, {})
    return run


@pytest.fixture
def sums(tmp_path: Path) -> str:
    """The task of a file with ten sums."""
    file = tmp_path / "sums.jsonl"
    rows = [{"problem": f"What is {a} plus {a * a}?", "answer": str(a + a * a)} for a in range(10)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return f"file:{file}"
