"""Everything a run works with, loaded from its configuration."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from aapo_desk import __version__, tasks
from aapo_desk.algorithms import build
from aapo_desk.config import ConfigError, RunConfig
from aapo_desk.config import Problem as Refusal
from aapo_desk.evaluation import HeldOut, judged_by
from aapo_desk.memory import ModelShape, loaded, plan
from aapo_desk.models import sources
from aapo_desk.models.loading import load_policy
from aapo_desk.models.logprobs import can_share
from aapo_desk.models.policy import Policy
from aapo_desk.rewards import RewardPool
from aapo_desk.store import RunWriter
from aapo_desk.tasks.prompts import Fit, fit
from aapo_desk.training.control import Control
from aapo_desk.training.step import Parts
from aapo_desk.training.update import checkpoint_layers

log = logging.getLogger(__name__)

ADDED_CHOICES = {"checkpointing": 0, "shadow_weights": 0}
"""Choices that records of older runs do not hold, and what those runs did."""


@dataclass(frozen=True)
class Prepared:
    """What the loop needs. ``held_out`` is None where the run evaluates nothing."""

    parts: Parts
    held_out: HeldOut | None


@contextmanager
def prepared(config: RunConfig, store: RunWriter, control: Control) -> Iterator[Prepared]:
    """Load data, model and reward workers; the workers end with the context.

    Raises ConfigError and ModelError with a line for the user.
    """

    def tell(message: str) -> None:
        log.info(message)
        control.report("preparing", None, message)

    tell("reading the problems")
    data = tasks.load(config.task, config.run.seed)
    resolved = sources.resolve(config.model, tell)
    control.report("loading", None, f"loading {config.model.id}")
    policy = load_policy(config.model, config.lora, resolved, config.run.seed)
    train = _fit(policy, data.train, config, store, "train")
    held_out = _fit(policy, data.held_out, config, store, "held_out")
    if not train.problems:
        message = f"every prompt is longer than this; the shortest has {train.shortest} tokens"
        raise ConfigError(Refusal("task.max_prompt_tokens", message, config.task.max_prompt_tokens))
    optimizer = torch.optim.AdamW(
        policy.adapter_parameters().values(), lr=config.optimizer.learning_rate, weight_decay=0.0
    )
    choices = recorded_choices(store, policy, config)
    torch.set_num_threads(choices["threads"])
    if choices["checkpointing"]:
        checkpoint_layers(policy)
    judges = judged_by(config.rewards)
    with RewardPool(config.rewards) as pool, RewardPool(judges) as judge_pool:
        parts = Parts(config, policy, build(config.algorithm), optimizer, pool, train.problems, train.prompts, choices)
        count = min(config.evaluation.problems, len(held_out.problems))
        asked = HeldOut(held_out.problems[:count], held_out.prompts[:count], judge_pool) if count else None
        yield Prepared(parts, asked)


def _fit(policy: Policy, problems: list[tasks.Problem], config: RunConfig, store: RunWriter, source: str) -> Fit:
    fitted = fit(policy.tokenizer, problems, config.task, config.model.chat_template_options)
    if fitted.dropped:
        log.info("dropped %d %s prompts longer than %d tokens", fitted.dropped, source, config.task.max_prompt_tokens)
        store.write_event("dropped", 0, count=fitted.dropped, source=source)
    return fitted


def recorded_choices(store: RunWriter, policy: Policy, config: RunConfig) -> dict[str, int]:
    """What was chosen for this device when the run first started; chosen and recorded now if it never did.

    A choice by free memory that came out differently would change a resumed run's last bits.
    """
    kept = store.recall("choices")
    if kept is None:
        kept = choose(policy, config)
        store.remember("choices", kept)
        log.info("choices for this device: %s", kept)
    return ADDED_CHOICES | {key: int(value) for key, value in kept.items()}


def choose(policy: Policy, config: RunConfig) -> dict[str, int]:
    """What this device and model ask for.

    token_budget, batch_rows, checkpointing and shadow_weights: the plan by free memory; share_prompts: whether the
    update may compute completions behind one prompt, which is exact only without dropout; threads: the CPU's.
    """
    shape = shape_of(policy)
    device = policy.device
    planned = plan(shape, config, _free_bytes(device) + loaded(shape, config, device.type), device.type)
    return {
        "token_budget": planned.token_budget,
        "batch_rows": planned.batch_rows,
        "checkpointing": int(planned.gradient_checkpointing),
        "shadow_weights": int(planned.shadow_weights),
        "share_prompts": int(config.lora.dropout == 0 and can_share(policy)),
        "threads": torch.get_num_threads(),
    }


def shape_of(policy: Policy) -> ModelShape:
    """The model's shape; of a model whose memory is not known, that of a Llama with the same numbers.

    Raises ValueError where the model's configuration does not even say those.
    """
    config = policy.causal.config.to_dict()
    try:
        return ModelShape.from_config(config)
    except ValueError as error:
        log.warning("%s; taken for a Llama of its size", error)
        return ModelShape.from_config({**policy.causal.config.get_text_config().to_dict(), "model_type": "llama"})


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return int(psutil.virtual_memory().available)


def describe(config: RunConfig) -> dict[str, Any]:
    """The versions a run was made with, for its record."""
    from importlib.metadata import version

    libraries = {name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")}
    return {"versions": {"aapo-desk": __version__, **libraries}, "algorithm": config.algorithm.name}
