"""A run with two checkpoints of a random adapter, as a trainer would have left it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from aapo_desk import checkpoint as checkpoints
from aapo_desk.config import LoraConfig, ModelConfig, resolve
from aapo_desk.models import sources
from aapo_desk.models.loading import load_policy
from aapo_desk.models.policy import Policy
from aapo_desk.rewards import Completion
from aapo_desk.store import RunDirectory, RunWriter, StepRecord, create_run


def tuned(config: dict[str, Any], seed: int) -> Policy:
    """The configured model with an adapter that moved: its B is random."""
    model = ModelConfig(**config["model"])
    policy = load_policy(model, LoraConfig(**config["lora"]), sources.resolve(model), seed=0)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in policy.adapter_parameters().items():
        if "lora_B" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return policy


def trained_run(
    config: dict[str, Any], name: str = "tuned", best: int = 1, steps: Sequence[int] = (1, 2)
) -> RunDirectory:
    run = create_run(resolve(config), name)
    writer = RunWriter(run)
    writer.write_evaluation(0, "held_out", evaluation(0.1))
    for step in steps:
        policy = tuned(config, seed=step)
        optimizer = torch.optim.AdamW(policy.adapter_parameters().values())
        checkpoints.save(run.checkpoints, step, policy, optimizer, {})
        writer.write_step(StepRecord(step, float(step), {"reward": step / 10, "entropy": 1.0}, {}, []))
        writer.write_evaluation(step, "held_out", evaluation(0.5))
        writer.write_event("checkpoint", step, path="", best=best)
    writer.close()
    return run


def evaluation(accuracy: float) -> dict[str, Any]:
    side = {"accuracy": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.1, "scores": [], "answers": []}
    return {"problems": 0, "ids": [], "greedy": side, "sampled": side}


def all_right(completions: Sequence[Completion]) -> dict[str, Any]:
    """A judge to whom every answer is right."""
    return {"accuracy": 1.0, "low": 0.9, "high": 1.0, "unscorable": 0, "scores": [1.0] * len(completions)}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
