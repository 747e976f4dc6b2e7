"""The run to kill: the tiny model in NF4 with a warm start, some steps, checkpoints, evaluations and pruning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

STEPS = 8


def configuration(model: Path) -> dict[str, Any]:
    """Return the run's configuration, with rewards whose workers start quickly."""
    return {
        "model": {"id": str(model), "device": "cpu", "quantization": "nf4"},
        "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
        "task": {"source": "arithmetic", "held_out": 4, "max_prompt_tokens": 200},
        "rewards": [{"name": "format", "options": {"pattern": "[a-m]"}}],
        "rollout": {"prompts_per_step": 2, "group_size": 4, "max_new_tokens": 6},
        "optimizer": {"learning_rate": 1e-3},
        "warm_start": {"solutions": 4, "epochs": 4},
        "run": {"steps": STEPS, "checkpoint_every": 2, "keep_checkpoints": 2},
        "evaluation": {"problems": 4, "every": 4},
    }
