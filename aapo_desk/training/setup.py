"""Everything a run works with, loaded from its configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from aapo_desk import __version__, tasks
from aapo_desk.algorithms import build
from aapo_desk.config import ConfigError, RunConfig, banks_reference
from aapo_desk.config import Problem as Refusal
from aapo_desk.evaluation import HeldOut, judged_by
from aapo_desk.models import sources
from aapo_desk.models.loading import load_policy
from aapo_desk.models.logprobs import can_share
from aapo_desk.models.policy import Policy
from aapo_desk.rewards import RewardPool
from aapo_desk.rollout import Bank, BankedReference, Sampling, can_be_fixed, reference
from aapo_desk.store import RunWriter, home
from aapo_desk.tasks.prompts import Fit, fit
from aapo_desk.training.control import Control
from aapo_desk.training.proof import prove
from aapo_desk.training.step import Parts

log = logging.getLogger(__name__)

CPU_TOKENS = 1024
"""Tokens in a micro-batch on the CPU: more saves no time there, and takes memory."""


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
        policy.adapter_parameters().values(), lr=config.optimizer.learning_rate, weight_decay=0.0, fused=True
    )
    choices = recorded_choices(store, policy, config, train.prompts, tell)
    judges = judged_by(config.rewards)
    with RewardPool(config.rewards) as pool, RewardPool(judges) as judge_pool:
        parts = Parts(
            config,
            policy,
            build(config.algorithm),
            optimizer,
            pool,
            train.problems,
            train.prompts,
            choices,
            banked_reference(config, policy, resolved, pool, store),
        )
        count = min(config.evaluation.problems, len(held_out.problems))
        asked = HeldOut(held_out.problems[:count], held_out.prompts[:count], judge_pool) if count else None
        yield Prepared(parts, asked)


def _fit(policy: Policy, problems: list[tasks.Problem], config: RunConfig, store: RunWriter, source: str) -> Fit:
    fitted = fit(policy.tokenizer, problems, config.task, config.model.chat_template_options)
    if fitted.dropped:
        log.info("dropped %d %s prompts longer than %d tokens", fitted.dropped, source, config.task.max_prompt_tokens)
        store.write_event("dropped", 0, count=fitted.dropped, source=source)
    return fitted


def banked_reference(
    config: RunConfig, policy: Policy, resolved: sources.ResolvedModel, pool: RewardPool, store: RunWriter
) -> BankedReference | None:
    """The reference's bank in the user's home; None where the run samples it anew in each step, or not at all."""
    if not banks_reference(config.algorithm.name, config.algorithm.reference):
        return None

    def warn(message: str) -> None:
        log.warning(message)
        store.write_event("notice", store.last_step(), message=message)

    bank = Bank(home() / "bank" / f"reference-{reference.FORMAT}.db", warn)
    return BankedReference(config, policy, reference.settings(config, policy, resolved, pool), bank)


def recorded_choices(
    store: RunWriter, policy: Policy, config: RunConfig, prompts: list[list[int]], tell: Callable[[str], None]
) -> dict[str, int]:
    """What was chosen for this device when the run first started; chosen, proved and recorded now if it never did.

    A choice by free memory that came out differently would change a resumed run's last bits. ``policy`` is left as the
    choices say.
    """
    kept = store.recall("choices")
    if kept is not None:
        choices = {key: int(value) for key, value in kept.items()}
        torch.set_num_threads(choices["threads"])
        policy.masks_rows = bool(choices.get("row_mask", 1))
        if choices.get("shadow_weights"):
            policy.use_shadow()
        return choices
    tell("comparing the fast paths with the plain one on this device")
    verdict = prove(policy, prompts, Sampling.of(config.rollout), choose(policy, config))
    for line in verdict.refused:
        log.warning(line)
        store.write_event("notice", 0, message=line)
    store.remember("choices", verdict.choices)
    log.info("choices for this device: %s", verdict.choices)
    return verdict.choices


def choose(policy: Policy, config: RunConfig) -> dict[str, int]:
    """What this device and model ask for.

    token_budget: tokens in an update's micro-batch; batch_rows: completions decoded at once; share_prompts: whether
    the update may compute completions behind one prompt, which is exact only without dropout; threads: the CPU's.
    """
    shape = policy.causal.config.get_text_config()
    heads = shape.num_attention_heads
    head_size = getattr(shape, "head_dim", None) or shape.hidden_size // heads
    kv_heads = getattr(shape, "num_key_value_heads", None) or heads
    size = 4 if policy.device.type == "cpu" else 2
    free = _free_bytes(policy.device)
    # Activations that one layer keeps of a token for the backward pass, in numbers (no attention matrix: SDPA).
    kept = 12 * shape.hidden_size + (3 * heads + kv_heads) * head_size + 3 * shape.intermediate_size
    update_tokens = free // 2 // (size * shape.num_hidden_layers * kept)
    cache = 2 * size * shape.num_hidden_layers * kv_heads * head_size
    length = config.task.max_prompt_tokens + config.rollout.max_new_tokens
    most = CPU_TOKENS if policy.device.type == "cpu" else 1 << 16
    return {
        "token_budget": int(max(1, min(update_tokens, most))),
        "batch_rows": int(max(1, min(free // 2 // (cache * length), 256))),
        "shadow_weights": int(config.rollout.weights != "adapter"),
        "fixed_steps": int(policy.device.type == "cuda" and config.rollout.capture == "auto" and can_be_fixed(policy)),
        "share_prompts": int(config.lora.dropout == 0 and can_share(policy)),
        "threads": torch.get_num_threads(),
    }


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
