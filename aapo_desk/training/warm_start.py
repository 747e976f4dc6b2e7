"""Warm start (SFT): a short supervised phase on a few worked solutions before step 1, for a model that solves none.

    loss = - mean over the completions' tokens of log pi(token | prompt, the tokens before it)

Each update takes ``SOLUTIONS_AN_UPDATE`` solutions and uses the same log-probabilities, micro-batches and backward pass
as the policy's updates. The optimiser is AdamW at a constant learning rate and is discarded afterwards: step 1 begins
with a fresh one. The reference does not change.

The warm start happens once, after the base has been evaluated, and has no checkpoint of its own: all of it follows from
the run's seed. A run that is interrupted before its first checkpoint repeats it and ends in the same bits.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from aapo_desk.config import ConfigError
from aapo_desk.config import Problem as Refusal
from aapo_desk.evaluation.held_out import judged_by
from aapo_desk.models.ends import end_token
from aapo_desk.models.logprobs import pack_logps
from aapo_desk.models.policy import Policy
from aapo_desk.rewards import Completion, Score, part_names
from aapo_desk.rewards.builtin import VERIFIERS
from aapo_desk.rollout import derive_seed
from aapo_desk.store import RunWriter, event_words
from aapo_desk.store.unscorable import UNSCORABLE_AS
from aapo_desk.tasks.solutions import Worked, choose
from aapo_desk.training.context import TrainContext, make_room
from aapo_desk.training.forward import Micro, Rollout, backpropagate, flat
from aapo_desk.training.loss_scaling import LossScale
from aapo_desk.training.update import ready, take_step

log = logging.getLogger(__name__)

PHASE = "warm start"
NAME = "warm_start"
"""Name of the event, and of the evaluation at step 0 after the warm start; the base's evaluation has the usual name."""

SOLUTIONS_AN_UPDATE = 8

Report = Callable[[str, float | None, str], None]
"""Takes a phase, its progress (0 to 1) and a message. May raise to end the phase."""


@dataclass(frozen=True)
class SftResult:
    """The result of the warm start. Losses are in nats per token over all solutions; ``losses`` has each epoch's mean
    training loss."""

    epochs: int
    updates: int
    loss_before: float
    loss_after: float
    losses: list[float]


def warm_start(
    context: TrainContext, store: RunWriter, report: Report, evaluate: Callable[[], dict[str, Any]] | None
) -> None:
    """Run the warm start if the run is configured to have one, and record its result and the evaluation after it.

    ``evaluate`` evaluates the policy; None: no evaluation. Raises ConfigError if there are too few solutions, if the
    rewards find none of them right, or if the learning rate is too high.
    """
    worked = choose(context.policy.tokenizer, context.train, context.config)
    if worked is None:
        return
    started = time.perf_counter()
    log.info(worked.words())
    report(PHASE, 0.0, worked.words())
    make_room(context)
    examples = as_examples(context, worked)
    reward = _own_reward(context, worked, examples)
    learned = learn(context, examples, report)
    make_room(context)
    data = asdict(learned) | {
        "solutions": len(worked.texts),
        "too_long": worked.too_long,
        "reward": reward,
        "seconds": time.perf_counter() - started,
        "held_out": None,
    }
    if evaluate:
        found = evaluate()
        store.write_evaluation(0, NAME, found)
        keys = ("accuracy", "low", "high", "unscorable", UNSCORABLE_AS)
        data["held_out"] = {side: {key: found[side][key] for key in keys} for side in ("greedy", "sampled")}
    log.info(event_words(NAME, data))
    store.write_event(NAME, 0, **data)


def as_examples(context: TrainContext, worked: Worked) -> Rollout:
    """Return the solutions as completions of their prompts, each with the token that ends it."""
    policy = context.policy
    end = end_token(policy.tokenizer, policy.eos_ids, context.config.model.chat_template_options)
    completions = []
    for tokens in worked.tokens:
        # A solution's text may already contain an end token.
        size = next((place for place, token in enumerate(tokens) if token in policy.eos_ids), len(tokens))
        completions.append([*tokens[:size], end])
    return Rollout([context.prompts[place] for place in worked.places], completions, temperature=1.0, group_size=1)


def learn(context: TrainContext, examples: Rollout, report: Report) -> SftResult:
    """Train the adapter on the examples.

    Raises ConfigError if a number is not finite, and MemoryGoneError if even a single solution at a time takes too much
    memory.
    """
    policy, settings, seed = context.policy, context.config.warm_start, context.config.run.seed
    rate = settings.learning_rate
    optimizer = torch.optim.AdamW(policy.adapter_parameters().values(), lr=rate, weight_decay=0.0, fused=True)
    scale = LossScale.for_policy(policy)
    before = _loss(context, examples)
    count = len(examples.completions)
    starts = range(0, count, SOLUTIONS_AN_UPDATE)
    updates = settings.epochs * len(starts)
    losses: list[float] = []
    number = 0
    for epoch in range(settings.epochs):
        order = random.Random(f"warm start {seed} {epoch}").sample(range(count), count)
        total = 0.0
        for start in starts:
            message = f"warm start: epoch {epoch + 1} of {settings.epochs}"
            report(PHASE, number / updates, message + (f", loss {losses[-1]:.3f}" if losses else ""))
            number += 1
            torch.manual_seed(derive_seed(seed, PHASE, number))
            rows = order[start : start + SOLUTIONS_AN_UPDATE]
            loss, tokens = _supervise(context, optimizer, examples, rows, scale)
            most = context.config.optimizer.max_grad_norm
            made_ready = context.attempt("optimizer", 0, lambda: ready(policy, optimizer))
            taken = take_step(policy, optimizer, made_ready, loss, rate, most, scale)
            if taken.broken:
                raise _not_finite(f"update {number} of {updates}", rate)
            total += loss * tokens
        losses.append(total / float(examples.mask().sum()))
    optimizer.zero_grad(set_to_none=True)
    after = _loss(context, examples)
    weights = policy.adapter_parameters().values()
    if not math.isfinite(after) or not all(bool(weight.isfinite().all()) for weight in weights):
        raise _not_finite("the final loss or a weight", rate)
    return SftResult(settings.epochs, updates, before, after, losses)


def _supervise(
    context: TrainContext,
    optimizer: torch.optim.Optimizer,
    examples: Rollout,
    rows: Sequence[int],
    scale: LossScale | None,
) -> tuple[float, int]:
    """Do the same as ``supervise``, in smaller micro-batches if memory runs out."""

    def compute() -> tuple[float, int]:
        return supervise(context.policy, optimizer, examples, rows, context.choices["token_budget"], scale)

    return context.attempt("update", 0, compute)


def _loss(context: TrainContext, examples: Rollout) -> float:
    """Do the same as ``mean_loss``, in smaller micro-batches if memory runs out."""
    return context.attempt("update", 0, lambda: mean_loss(context.policy, examples, context.choices["token_budget"]))


def supervise(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    examples: Rollout,
    rows: Sequence[int],
    budget: int,
    scale: LossScale | None = None,
) -> tuple[float, int]:
    """Set the adapter's gradients to those of the loss over these rows, times the loss scale's factor.

    Returns the loss and the number of tokens that it is the mean over.
    """
    optimizer.zero_grad(set_to_none=False)
    chosen = torch.zeros_like(mask := examples.mask())
    chosen[list(rows)] = mask[list(rows)]
    tokens = int(chosen.sum())
    with policy.training():
        gradient = -chosen / tokens * (scale.factor if scale else 1.0)
        seen = backpropagate(_logps(policy, examples), gradient, examples.cut(rows, budget, None))
    return -float((seen * chosen).sum()) / tokens, tokens


def mean_loss(policy: Policy, examples: Rollout, budget: int) -> float:
    """Return the loss of the current policy over all examples, in nats per token."""
    mask = examples.mask()
    logps = _logps(policy, examples)
    total = 0.0
    with torch.no_grad():
        for batch in examples.cut(range(len(examples.completions)), budget, None):
            total -= float((logps(batch).to(mask) * mask[flat(batch)]).sum())
    return total / float(mask.sum())


def _logps(policy: Policy, examples: Rollout) -> Callable[[Micro], Tensor]:
    return lambda batch: pack_logps(policy, examples.packs(batch), examples.width, examples.temperature)


def _not_finite(what: str, rate: float) -> ConfigError:
    message = f"{what} in the warm start is not a finite number, so the warm start was stopped; lower the learning rate"
    return ConfigError(Refusal("warm_start.learning_rate", message, rate))


def _own_reward(context: TrainContext, worked: Worked, examples: Rollout) -> float | None:
    """Return the mean of the run's rewards for the solutions; None if none of them can be scored.

    Raises ConfigError if the reward that tells right from wrong finds all of them wrong: learning them would be no use.
    """
    config = context.config
    problems = [context.train[place] for place in worked.places]
    completions = [
        Completion(
            text=text,
            problem=problem.problem,
            answer=problem.answer,
            tokens=len(tokens),
            max_tokens=config.rollout.max_new_tokens,
            truncated=False,
            recipe=problem.recipe,
        )
        for text, problem, tokens in zip(worked.texts, problems, examples.completions, strict=True)
    ]
    scores = context.pool.score(completions)
    if _all_wrong(context, scores):
        message = (
            f"the reward {judged_by(config.rewards)[0].name} finds none of the {len(scores)} worked solutions right; "
            "write them in the form that the rewards expect"
        )
        raise ConfigError(Refusal("warm_start.template", message, config.warm_start.template))
    totals = [score.total for score in scores if score.total is not None]
    return sum(totals) / len(totals) if totals else None


def _all_wrong(context: TrainContext, scores: Sequence[Score]) -> bool:
    rewards = context.config.rewards
    judge = judged_by(rewards)[0].name
    name = part_names(rewards)[[reward.name for reward in rewards].index(judge)]
    return judge in VERIFIERS and not any(score.parts[name] for score in scores)
