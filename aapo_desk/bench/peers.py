"""The peers that are measured against each other: each is a job with its own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aapo_desk.bench.jobs import Job, Measured
from aapo_desk.config import RunConfig, resolve
from aapo_desk.hardware import gpus

MICRO_BATCHES = (4, 8, 16, 32)
CHECKPOINTED = (4, 8)
"""The micro-batch sizes at which TRL is also tried with gradient checkpointing.

Like a small micro-batch, it saves memory and costs time.
"""
BY_DEFAULT = 8
"""TRL's default micro-batch."""
CLOSE = 1.1
"""A TRL setting is measured in later rounds too if its time in the first is at most this many times the best."""

REWARDS = [{"name": f"{Path(__file__).with_name('rewards.py')}:score"}]


@dataclass(frozen=True)
class Peer:
    """Something to measure: a job with a name for scripts (``key``) and a description for people (``what``).

    ``once`` limits it to the first round, which is enough for it.
    """

    key: str
    what: str
    job: Job
    once: bool = False

    @property
    def fair_trl(self) -> bool:
        """Return whether this is TRL adapted to the device, in one of the settings tried, and not TRL by default."""
        return self.job.worker == "trl_steps" and not self.job.options["as_it_comes"]


@dataclass(frozen=True)
class Variant:
    """A way in which we do a step or a part of it.

    ``overrides`` are changes of settings; ``choices`` replace entries of the execution plan chosen for the device.
    """

    key: str
    what: str
    worker: str
    overrides: Mapping[str, Any]
    choices: Mapping[str, int] = field(default_factory=dict)


VARIANTS = (
    Variant("aapo_fresh", "AAPO, fresh reference", "steps", {"algorithm.name": "aapo"}),
    Variant(
        "aapo_fresh_adapter",
        "AAPO, fresh reference, no dequantized weights",
        "steps",
        {"algorithm.name": "aapo", "rollout.weights": "adapter"},
    ),
    Variant(
        "aapo_least",
        "the same with least memory: small batches, gradient checkpointing",
        "steps",
        {"algorithm.name": "aapo", "rollout.weights": "adapter"},
        {"token_budget": 256, "checkpointing": 1, "batch_rows": 16},
    ),
    Variant("aapo_bank", "AAPO, reference cache", "steps", {"algorithm.name": "aapo", "algorithm.reference": "bank"}),
    Variant("grpo", "GRPO", "steps", {"algorithm.name": "grpo"}),
    Variant("dense", "GRPO, prompts not shared", "steps", {"algorithm.name": "grpo"}, {"share_prompts": 0}),
    Variant(
        "generate",
        "rollout of policy and reference, two generate() calls",
        "generate",
        {"algorithm.name": "aapo", "rollout.weights": "adapter"},
    ),
    Variant("arithmetic", "update vs. matmul", "arithmetic", {"algorithm.name": "grpo"}),
)
UNCAPTURED = Variant(
    "uncaptured",
    "AAPO, fresh reference, no CUDA graphs",
    "steps",
    {"algorithm.name": "aapo", "rollout.capture": "off"},
)
"""Measured only on a GPU, since decoding uses CUDA graphs only there."""


def peers(config: RunConfig, against: str | None) -> list[Peer]:
    """Return everything to measure for a configuration, in the order of a round."""
    base = comparable(config)
    found = [
        Peer(variant.key, variant.what, Job(variant.worker, resolve(base, variant.overrides), variant.choices))
        for variant in (*VARIANTS, *([UNCAPTURED] if config.model.device != "cpu" and gpus() else []))
    ]
    if against == "trl":
        # Dequantized weights are ours, so TRL must not be charged with their memory.
        found += trl(resolve(base, {"algorithm.name": "grpo", "rollout.weights": "adapter"}))
    return found + update_memory(resolve(base, {"algorithm.name": "grpo"}))


def comparable(config: RunConfig) -> dict[str, Any]:
    """Return the configuration without what would distort a comparison: evaluations, dropout, real rewards."""
    base = config.model_dump(mode="json")
    base["rewards"] = REWARDS
    base["evaluation"]["problems"] = 0
    base["lora"]["dropout"] = 0.0
    base["algorithm"]["options"] = {}
    base["run"]["steps"] = max(config.run.steps, 10)
    return base


def trl(config: RunConfig) -> list[Peer]:
    """Return TRL in each of the settings that are tried, and with its defaults."""
    rows = config.rollout.prompts_per_step * config.rollout.group_size
    tried = [(size, False) for size in MICRO_BATCHES] + [(size, True) for size in CHECKPOINTED]
    found = [_trl(config, size, checkpointing) for size, checkpointing in tried if rows % size == 0]
    by_default = next(size for size in range(min(BY_DEFAULT, rows), 0, -1) if rows % size == 0)
    options = {"micro_batch": by_default, "checkpointing": True, "as_it_comes": True}
    job = Job("trl_steps", config, steps=1, options=options)
    return [*found, Peer("trl_as_it_comes", f"TRL GRPO by default, micro-batch {by_default}", job, once=True)]


def _trl(config: RunConfig, size: int, checkpointing: bool) -> Peer:
    options = {"micro_batch": size, "checkpointing": checkpointing, "as_it_comes": False}
    ending = "_checkpointing" if checkpointing else ""
    what = f"TRL GRPO, micro-batch {size}" + (", gradient checkpointing" if checkpointing else "")
    return Peer(f"trl_{size}{ending}", what, Job("trl_steps", config, options=options))


def update_memory(config: RunConfig) -> list[Peer]:
    """Return updates of growing size that all have the same token budget for a micro-batch."""
    rollout = config.rollout
    group, tokens = rollout.group_size, rollout.max_new_tokens
    half = max(2, group // 2)
    budget = rollout.prompts_per_step * half * tokens
    sizes = dict.fromkeys([(half, tokens), (group, tokens), (2 * group, tokens), (2 * group, 2 * tokens)])
    found = []
    for size, length in sizes:
        sized = resolve(config.model_dump(mode="json"), {"rollout.group_size": size, "rollout.max_new_tokens": length})
        job = Job("updates", sized, {"token_budget": budget}, warm_up=0, steps=1)
        what = f"update memory, {rollout.prompts_per_step} x {size} completions of {length} tokens"
        found.append(Peer(f"update_memory_{size}x{length}", what, job, once=True))
    return found


def worth_another_round(peers: Sequence[Peer], first: Mapping[str, Measured]) -> list[Peer]:
    """Return the peers for the later rounds: ours, and TRL's settings near its best time or with its least memory."""
    times = {peer.key: min(step["seconds"] for step in first[peer.key].steps) for peer in peers if peer.key in first}
    fair = [peer.key for peer in peers if peer.fair_trl and peer.key in first]
    if not fair:
        return [peer for peer in peers if not peer.once]
    best, least = min(times[key] for key in fair), min(first[key].peak_mb for key in fair)
    kept = {key for key in fair if times[key] <= best * CLOSE or first[key].peak_mb == least}
    return [peer for peer in peers if not peer.once and (peer.key in kept or not peer.fair_trl)]
