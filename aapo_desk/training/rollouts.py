"""Sample and score a step's completions. If the algorithm asks for it, groups with constant rewards are replaced."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aapo_desk.algorithms.base import varied
from aapo_desk.rewards import RewardError
from aapo_desk.rollout import (
    Completions,
    Drawn,
    Lookup,
    Row,
    Sampling,
    Scored,
    Side,
    Sides,
    decode,
    derive_seed,
    score,
    uniforms,
)
from aapo_desk.tasks import Problem
from aapo_desk.training.context import Report, TrainContext
from aapo_desk.training.distributed.group import Message
from aapo_desk.training.distributed.messages import Share, joined
from aapo_desk.training.nonfinite import broken_logps


@dataclass(frozen=True)
class Gathered:
    """The rollout that a step learns from."""

    chosen: list[int]
    """Indices of the problems, in the order of the groups."""
    sides: Sides
    first: Side
    """The policy's completions of the problems chosen first, before any refill."""
    refilled: int
    """Number of groups that replaced a constant one."""
    seconds: dict[str, float]
    """Seconds by phase: rollout and reward."""


def collect_rollouts(context: TrainContext, chosen: Sequence[int], step: int, report: Report) -> Gathered:
    """Sample and score the ``chosen`` problems.

    Up to ``max_refills`` times, problems whose group has constant rewards are replaced by others, drawn from the run's
    seed and the step's number, each at most once per step. Groups that are constant even then stay. Raises RewardError
    if the algorithm needs rewards of 0 or 1 and there are others.
    """
    chosen = list(chosen)
    seconds = dict.fromkeys(("rollout", "reward"), 0.0)
    seed = context.config.run.seed
    sides = first = _sample(context, chosen, derive_seed(seed, "rollout", step), report, seconds)
    others = iter(_others(context, chosen, step) if context.algorithm.max_refills else ())
    refilled = 0
    for number in range(context.algorithm.max_refills):
        constant = (~varied(sides.policy.rewards)).squeeze(1).nonzero().squeeze(1).tolist()
        new = dict(zip(constant, others, strict=False))
        if not new:
            break
        drawn = _sample(context, list(new.values()), derive_seed(seed, "refill", step, number), report, seconds)
        sides = _in_place(sides, list(new), drawn)
        for place, problem in new.items():
            chosen[place] = problem
        refilled += len(new)
    if context.algorithm.needs_labels:
        _refuse_grades(sides.policy, context.algorithm.name, step)
    return Gathered(chosen, sides, first.policy, refilled, seconds)


def _refuse_grades(side: Side, name: str, step: int) -> None:
    """Raise RewardError if a reward is neither 0 nor 1. For a user's own reward this cannot be checked earlier."""
    grades = [one.score.total for one in side.scored if one.score.total not in (None, 0.0, 1.0)]
    if grades:
        raise RewardError(
            f"{name} learns from rewards that are exactly 0 or 1; in step {step} one was {grades[0]:g}: let the reward "
            "function return only these two, or choose another algorithm.name"
        )


def _others(context: TrainContext, chosen: Sequence[int], step: int) -> list[int]:
    """Return the indices of all problems that are not ``chosen``, shuffled by the run's seed and the step's number."""
    taken = set(chosen)
    order = [problem for problem in range(len(context.train)) if problem not in taken]
    random.Random(f"refill {context.config.run.seed} {step}").shuffle(order)
    return order


def _in_place(sides: Sides, places: Sequence[int], new: Sides) -> Sides:
    """Return ``sides`` with the groups at ``places`` replaced by those of ``new``."""
    size = sides.policy.group_size
    rows = [place * size + row for place in places for row in range(size)]
    tensors = {name: value.clone() for name, value in vars(sides.completions).items()}
    for name, value in tensors.items():
        value[rows] = getattr(new.completions, name)
    scored: list[Scored] = list(sides.policy.scored)
    for row, one in zip(rows, new.policy.scored, strict=True):
        scored[row] = one
    return replace(
        sides,
        completions=Completions(**tensors),
        policy=Side(scored, size),
        new=[*sides.new, *new.new],
        broken=sides.broken or new.broken,
    )


def _sample(
    context: TrainContext, chosen: Sequence[int], seed: int, report: Report, seconds: dict[str, float]
) -> Sides:
    """Sample and score both sides' completions of these problems on all processes. Adds to ``seconds``."""
    started = time.perf_counter()
    mine, *others = context.ranks.slices(len(chosen))
    said = {"chosen": list(chosen), "seed": seed, "choices": context.choices}

    def together() -> list[Share]:
        return context.ranks.run_on_all_ranks(
            "sample",
            [Message(said | {"own": [own.start, own.stop]}) for own in others],
            lambda: sample_share(context, chosen, mine, seed, report),
            Share.read,
        )

    # Out of memory in another process is raised here and is retried like one in this process.
    shares = context.attempt("rollout", len(chosen) * context.config.rollout.group_size, together)
    rollout = max(share.seconds for share in shares)
    seconds["rollout"] += rollout
    seconds["reward"] += time.perf_counter() - started - rollout
    return joined(shares, context.config.rollout.group_size)


def sample_share(context: TrainContext, chosen: Sequence[int], own: range, seed: int, report: Report) -> Share:
    """Sample and score both sides' completions of this process's share, the ``chosen`` problems at indices ``own``."""
    config = context.config.rollout
    needed = context.algorithm.needs_reference_rewards
    if not own:  # a refill may have fewer problems than there are processes
        nothing = decode(context.policy, [], [], config.max_new_tokens, Sampling.of(config), torch.zeros(0, 0))
        return Share(nothing, [], [] if needed else None, [], 0.0)
    prompts = [context.prompts[chosen[place]] for place in own]
    problems = [context.train[chosen[place]] for place in own]
    started = time.perf_counter()
    banked = context.bank.look_up(prompts, problems) if context.bank else None
    numbers = _numbers(context, len(chosen), own, 2 if needed and banked is None else 1, seed)
    drawn = _roll_out(context, problems, prompts, banked, numbers, lambda share: report("rollout", share))
    seconds = time.perf_counter() - started
    report("reward", None)
    policy, *others = score(context.pool, context.policy.tokenizer, drawn, config.max_new_tokens)
    sampled = [one for side in others for one in side]
    whose = zip(("the policy's rollout", "the reference's rollout"), drawn, strict=False)
    broken = broken_logps({name: one.completions.logps for name, one in whose})
    reference = banked.complete(sampled, keep=broken is None) if banked else sampled
    where = broken.where if broken else None
    return Share(drawn[0].completions, policy, reference if needed else None, sampled, seconds, where)


def _numbers(context: TrainContext, count: int, own: range, sides: int, seed: int) -> Tensor:
    """Return this share's uniforms, [rows, max_new_tokens], out of those drawn for all ``count`` prompts.

    So a row gets the same random numbers whichever process decodes it.
    """
    size, width = context.config.rollout.group_size, context.config.rollout.max_new_tokens
    numbers = uniforms(sides * count * size, width, seed).view(sides, count * size, width)
    return numbers[:, own.start * size : own.stop * size].flatten(0, 1)


def _roll_out(
    context: TrainContext,
    problems: Sequence[Problem],
    prompts: Sequence[list[int]],
    banked: Lookup | None,
    numbers: Tensor,
    progress: Callable[[float], None],
) -> list[Drawn]:
    """Sample the policy's completions and, if the algorithm needs them, the reference's in the same batch.

    With a reference cache, the reference is sampled in a separate batch, for the prompts that are not in the cache.
    """
    config = context.config.rollout
    sides = [True, False] if context.algorithm.needs_reference_rewards and banked is None else [True]
    groups = range(config.group_size)
    rows = [Row(prompt, adapter) for adapter in sides for prompt in range(len(prompts)) for _ in groups]
    first = len(prompts) / (len(prompts) + len(banked.missing if banked else []))
    done = context.attempt(
        "rollout",
        len(rows),
        lambda: decode(
            context.policy,
            prompts,
            rows,
            config.max_new_tokens,
            Sampling.of(config),
            numbers,
            context.choices["batch_rows"],
            progress=lambda share: progress(first * share),
            fixed=bool(context.choices["fixed_steps"]),
        ),
    )
    half = len(prompts) * config.group_size
    drawn = [Drawn(done.take(range(start, start + half)), problems) for start in range(0, len(rows), half)]
    if banked:
        drawn += context.attempt(
            "reference",
            len(banked.missing) * config.group_size,
            lambda: banked.draw(
                context.choices["batch_rows"],
                lambda share: progress(first + (1 - first) * share),
                bool(context.choices["fixed_steps"]),
            ),
        )
    return drawn
