"""Load everything that a run needs, as its configuration says."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aapo_desk import __version__, tasks
from aapo_desk.algorithms import build
from aapo_desk.config import RewardConfig, RunConfig, banks_reference, user_path
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
from aapo_desk.training.context import TrainContext
from aapo_desk.training.control import Control
from aapo_desk.training.device.allocator import freed_at_once
from aapo_desk.training.device.execution_plan import fence, settled
from aapo_desk.training.distributed.env import RankError
from aapo_desk.training.distributed.group import ALONE, Message, Ranks
from aapo_desk.training.ends import settle_ends
from aapo_desk.training.pauses import PausingPool

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """Everything that the training loop needs. ``held_out`` is None if the run evaluates nothing."""

    context: TrainContext
    held_out: HeldOut | None


@dataclass(frozen=True)
class Loaded:
    """The data and model, the same in every process of the run."""

    policy: Policy
    resolved: sources.ResolvedModel
    train: Fit
    held_out: Fit

    @property
    def digest(self) -> str:
        """A SHA-256 hash of the problems, their order and their prompts' tokens."""
        found = hashlib.sha256()
        for fitted in (self.train, self.held_out):
            for problem, prompt in zip(fitted.problems, fitted.prompts, strict=True):
                found.update(json.dumps([problem.id, problem.problem, problem.answer, prompt]).encode())
        return found.hexdigest()


def load(
    config: RunConfig,
    start_adapter: Path,
    report: Callable[[str, float | None, str], None],
    backend: Backend = "transformers",
) -> Loaded:
    """Read the problems and load the model.

    ``start_adapter`` is the run's own copy of the adapter that it starts from, if any. ``report`` is called with phase,
    progress and message. Raises as ``prepared`` does.
    """

    def tell(message: str, share: float | None = None) -> None:
        log.info(message)
        report("preparing", share, message)

    tell("reading the problems")
    data = tasks.load(config.task, config.run.seed, tell)
    for note in data.notes:
        log.info(note)
    resolved = sources.resolve(config.model, tell)
    report("loading", None, f"loading {config.model.id}")
    fence()
    with freed_at_once():
        policy = load_policy(config.model, config.lora, resolved, config.run.seed, backend)
    if config.lora.start_from is not None:
        start_from(policy, start_adapter if start_adapter.is_dir() else user_path(config.lora.start_from))
    train, held_out = (
        fit(policy.tokenizer, problems, config.task, config.model.chat_template_options)
        for problems in (data.train, data.held_out)
    )
    return Loaded(policy, resolved, train, held_out)


@contextmanager
def assembled(
    config: RunConfig,
    loaded: Loaded,
    choices: dict[str, int],
    warn: Callable[[str], None],
    ranks: Ranks = ALONE,
    make_pool: Callable[[Sequence[RewardConfig]], RewardPool] = RewardPool,
) -> Iterator[Prepared]:
    """Prepare the training loop from loaded data and model; the reward workers end with the context."""
    policy, train, held_out = loaded.policy, loaded.train, loaded.held_out
    optimizer = torch.optim.AdamW(
        policy.adapter_parameters().values(), lr=config.optimizer.learning_rate, weight_decay=0.0, fused=True
    )
    judges = judged_by(config.rewards)
    with make_pool(config.rewards) as pool, make_pool(judges) as judge_pool:
        bank = banked_reference(config, policy, loaded.resolved, pool, warn)
        if bank is not None and isinstance(pool, PausingPool):
            pool.reloaded = lambda: bank.settle(reference.settings(config, policy, loaded.resolved, pool))
        context = TrainContext(
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
            ranks,
        )
        count = min(config.evaluation.problems, len(held_out.problems))
        asked = HeldOut(held_out.problems[:count], held_out.prompts[:count], judge_pool) if count else None
        yield Prepared(context, asked)


@contextmanager
def prepared(
    config: RunConfig,
    store: RunWriter,
    control: Control,
    probed: bool = True,
    backend: Backend = "transformers",
    ranks: Ranks = ALONE,
    instead: Mapping[str, int] | None = None,
) -> Iterator[Prepared]:
    """Load data, model and reward workers; the workers end with the context.

    ``probed``: measure a step's memory first, unless this run has already done so. ``instead``: choices for this device
    that are fixed rather than determined here.

    Other processes of the run load theirs after this one is ready, so downloads happen once per host. Raises
    ConfigError, ModelError, HubError and RankError with a line for the user, and UnslothError if ``backend`` is unsloth
    and does not work.
    """

    def tell(message: str, share: float | None = None) -> None:
        log.info(message)
        control.report("preparing", share, message)

    def warn(message: str) -> None:
        log.warning(message)
        store.write_event("notice", store.last_step(), message=message)

    loaded = load(config, store.run.start_adapter, control.report, backend)
    for source, fitted in (("train", loaded.train), ("held_out", loaded.held_out)):
        _tell_dropped(store, source, fitted)
    refuse_empty(config.task, loaded.train)
    settle_ends(store, loaded.policy, warn)  # before anything is decoded or cached
    choices = settled(store, loaded.policy, config, loaded.train.prompts, tell, probed, instead)
    gather_ranks(ranks, loaded, choices, tell)

    def pausing_pool(rewards: Sequence[RewardConfig]) -> RewardPool:
        return PausingPool(rewards, control, store)

    with assembled(config, loaded, choices, warn, ranks, pausing_pool) as ready:
        yield ready


def gather_ranks(ranks: Ranks, loaded: Loaded, choices: dict[str, int], tell: Callable[[str], None]) -> None:
    """Let the other processes load the same data and model. Raises RankError if their problems or prompts differ."""
    if ranks.size == 1:
        return
    tell(f"{ranks.size} processes train this run; waiting for the others to load the model")
    letters = [Message({"choices": choices, "eos_ids": list(loaded.policy.eos_ids)})] * (ranks.size - 1)
    digests = ranks.run_on_all_ranks("load", letters, lambda: loaded.digest, lambda letter: str(letter.data["digest"]))
    for rank, digest in enumerate(digests):
        if digest != digests[0]:
            raise RankError(
                f"process {rank} of {ranks.size} has different problems or prompts than process 0: every host needs "
                "the same run folder, data and package versions"
            )
    ranks.use(list(loaded.policy.adapter_parameters().values()))


def _tell_dropped(store: RunWriter, source: str, fit: Fit) -> None:
    if fit.dropped:
        words = "dropped %d %s prompts: %d too long, %d too short"
        log.info(words, fit.dropped, source, fit.too_long, fit.too_short)
        store.write_event("dropped", 0, count=fit.dropped, source=source)


def banked_reference(
    config: RunConfig,
    policy: Policy,
    resolved: sources.ResolvedModel,
    pool: RewardPool,
    warn: Callable[[str], None],
) -> BankedReference | None:
    """Return the reference cache in the user's home; None if the run samples the reference in each step or not at all.

    ``warn`` is called with the cache's problems.
    """
    if not banks_reference(config.algorithm.name, config.algorithm.reference):
        return None
    bank = Bank(home() / "bank" / f"reference-{reference.FORMAT}.db", warn)
    return BankedReference(config, policy, reference.settings(config, policy, resolved, pool), bank)


def describe(config: RunConfig, backend: Backend, processes: int = 1) -> dict[str, Any]:
    """Return the versions, algorithm, backend and number of processes that a run trains with, for its record."""
    from importlib.metadata import version

    used = ("torch", "transformers", "peft", "bitsandbytes", *(["unsloth"] if backend == "unsloth" else []))
    libraries = {name: version(name) for name in used}
    return {
        "versions": {"aapo-desk": __version__, **libraries},
        "algorithm": config.algorithm.name,
        "backend": backend,
        "processes": processes,
    }
