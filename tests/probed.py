"""The probe in a process of its own, as a run has it: ``python -m tests.probed FOLDER...`` prints JSON, a model a line.

A process that has done other work has holes in its memory, and what it takes next says little.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aapo_desk.config import resolve
from aapo_desk.launch.child import environment

LENGTHS = (40, 400)
"""Lengths of the completions."""

CONFIG = resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}, "lora": {"r": 4}})


def probed(folders: Sequence[Path]) -> list[dict[int, Any]]:
    """Return the result of each model's probe by the completions' length."""
    command = [sys.executable, "-m", "tests.probed", *map(str, folders)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    return [
        dict(zip(LENGTHS, json.loads(line), strict=True)) for line in done.stdout.splitlines() if line.startswith("[")
    ]


def main(folders: Sequence[str]) -> None:
    import torch

    from aapo_desk.models.logprobs import can_share
    from aapo_desk.models.room import shape_of
    from aapo_desk.rollout import Sampling
    from aapo_desk.rollout.trial import Workload
    from aapo_desk.rollout.verify import verify_fast_paths
    from aapo_desk.training.device.execution_plan import apply
    from aapo_desk.training.device.memory_probe import probe
    from tests.policies import load_tiny

    prompts = [[5] * 60]
    for folder in folders:
        policy = load_tiny(Path(folder), quantization="nf4", trained=False)
        choices = {"token_budget": 512, "batch_rows": 64, "share_prompts": int(can_share(policy)), "fixed_steps": 0}
        choices |= {"checkpointing": 0, "shadow_weights": 0, "threads": torch.get_num_threads()}
        choices |= {"row_mask": 1, "own_update": 1}
        verify_fast_paths(policy, Workload(prompts, 4, 100, 64), Sampling(), choices)
        found = []
        for length in LENGTHS:
            config = resolve(CONFIG.model_dump(mode="json"), {"rollout.max_new_tokens": length})
            found.append(probe(policy, config, shape_of(policy), prompts, choices, apply).as_json())
        sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
