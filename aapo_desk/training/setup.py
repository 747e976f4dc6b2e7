"""Everything a run works with, loaded from its configuration."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from aapo_desk import __version__, tasks
from aapo_desk.algorithms import build
from aapo_desk.config import RunConfig, banks_reference, user_path
from aapo_desk.evaluation.held_out import HeldOut, judged_by
from aapo_desk.models import sources
from aapo_desk.models.loading import load_policy
from aapo_desk.models.policy import Backend, Policy
from aapo_desk.models.starting import start_from
from aapo_desk.rewards import RewardPool
from aapo_desk.rollout import Bank, BankedReference, reference
from aapo_desk.store import RunWriter, home
from aapo_desk.tasks.difficulty import Difficulty
from aapo_desk.tasks.prompts import Fit, fit, refuse_empty
from aapo_desk.training.choices import fence, settled
from aapo_desk.training.control import Control
from aapo_desk.training.mending import MendablePool
from aapo_desk.training.parts import Parts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What the loop needs. ``held_out`` is None where the run evaluates nothing."""

    parts: Parts
    held_out: HeldOut | None


@contextmanager
def prepared(
    config: RunConfig, store: RunWriter, control: Control, probed: bool = True, backend: Backend = "transformers"
) -> Iterator[Prepared]:
    """Load data, model and reward workers; the workers end with the context. ``probed``: a step is measured before.

    Raises ConfigError, ModelError and HubError with a line for the user, and UnslothError where ``backend`` is unsloth
    and does not work.
    """

    def tell(message: str, share: float | None = None) -> None:
        log.info(message)
        control.report("preparing", share, message)

    tell("reading the problems")
    data = tasks.load(config.task, config.run.seed, tell)
    for note in data.notes:
        log.info(note)
    resolved = sources.resolve(config.model, tell)
    control.report("loading", None, f"loading {config.model.id}")
    fence()
    policy = load_policy(config.model, config.lora, resolved, config.run.seed, backend)
    if config.lora.start_from is not None:
        own = store.run.start_adapter
        start_from(policy, own if own.is_dir() else user_path(config.lora.start_from))
    train = _fit(policy, data.train, config, store, "train")
    held_out = _fit(policy, data.held_out, config, store, "held_out")
    refuse_empty(config.task, train)
    optimizer = torch.optim.AdamW(
        policy.adapter_parameters().values(), lr=config.optimizer.learning_rate, weight_decay=0.0, fused=True
    )
    choices = settled(store, policy, config, train.prompts, tell, probed)
    judges = judged_by(config.rewards)
    with MendablePool(config.rewards, control, store) as pool, MendablePool(judges, control, store) as judge_pool:
        bank = banked_reference(config, policy, resolved, pool, store)
        if bank is not None:
            pool.reloaded = lambda: bank.settle(reference.settings(config, policy, resolved, pool))
        parts = Parts(
            config,
            policy,
            build(config.algorithm, config.rollout),
            optimizer,
            pool,
            train.problems,
            train.prompts,
            choices,
            bank,
            Difficulty.of(config, train.problems),
        )
        count = min(config.evaluation.problems, len(held_out.problems))
        asked = HeldOut(held_out.problems[:count], held_out.prompts[:count], judge_pool) if count else None
        yield Prepared(parts, asked)


def _fit(policy: Policy, problems: list[tasks.Problem], config: RunConfig, store: RunWriter, source: str) -> Fit:
    fitted = fit(policy.tokenizer, problems, config.task, config.model.chat_template_options)
    if fitted.dropped:
        log.info(
            "dropped %d %s prompts: %d too long, %d too short",
            fitted.dropped,
            source,
            fitted.too_long,
            fitted.too_short,
        )
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

    bank = Bank(home() / "bank" / f"reference-{reference.FORMAT}.db", warn, store.keep)
    return BankedReference(config, policy, reference.settings(config, policy, resolved, pool), bank)


def describe(config: RunConfig, backend: Backend) -> dict[str, Any]:
    """The versions a run was made with, for its record."""
    from importlib.metadata import version

    used = ("torch", "transformers", "peft", "bitsandbytes", *(["unsloth"] if backend == "unsloth" else []))
    libraries = {name: version(name) for name in used}
    return {
        "versions": {"aapo-desk": __version__, **libraries},
        "algorithm": config.algorithm.name,
        "backend": backend,
    }
