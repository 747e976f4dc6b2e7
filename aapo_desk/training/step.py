"""One training step: sample, score, update. Its result is recorded as a ``StepRecord``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from aapo_desk.algorithms import Algorithm
from aapo_desk.config import RunConfig
from aapo_desk.evaluation.held_out import judged_by
from aapo_desk.rewards import part_names
from aapo_desk.rollout import Side, Sides, derive_seed
from aapo_desk.store import Histogram, Sample, StepRecord
from aapo_desk.tasks import Problem
from aapo_desk.tasks.order import step_problems
from aapo_desk.training.context import Report, TrainContext, make_room
from aapo_desk.training.device.allocator import freed_at_once
from aapo_desk.training.device.memory_probe import Phase
from aapo_desk.training.forward import Rollout
from aapo_desk.training.metrics import NAN, NOT_FINITE, advantage_metrics, mean, reward_metrics
from aapo_desk.training.nonfinite import NonFinite
from aapo_desk.training.oom_retry import Result
from aapo_desk.training.rollouts import collect_rollouts
from aapo_desk.training.update import Update, learning_rate, update


@dataclass(frozen=True)
class StepResult:
    """The record of a step, its update, and the completions that could not be scored."""

    record: StepRecord
    update: Update
    unscorable: list[tuple[str, str]]
    """The error and the completion's text, for each completion that could not be scored."""


def run_step(context: TrainContext, step: int, report: Report) -> StepResult:
    """Run step number ``step`` (from 1). Everything random follows from the run's seed and the step's number."""
    config = context.config
    torch.manual_seed(derive_seed(config.run.seed, "step", step))
    choice = context.difficulty.choose(config.rollout.prompts_per_step) if context.difficulty else None
    chosen = choice.problems if choice else _in_order(context, step)
    make_room(context)
    gathered = collect_rollouts(context, chosen, step, report)
    sides = gathered.sides
    make_room(context)
    report("update", 0.0)
    started = time.perf_counter()
    rate = context.rate_factor * learning_rate(config.optimizer, step, config.run.steps)
    prompts = [context.prompts[index] for index in gathered.chosen]
    done = _update(context, prompts, sides, rate, lambda share: report("update", share))
    seconds = {**gathered.seconds, "update": time.perf_counter() - started}

    metrics = _metrics(context, gathered.first, sides, done) | _timings(seconds, sides)
    if done.broken:
        metrics[NOT_FINITE] = 1.0
    metrics |= {"learning_rate": rate, "memory_mb": memory_mb(context.policy.device)}
    if context.algorithm.max_refills:
        metrics["refilled_groups"] = float(gathered.refilled)
    if context.difficulty and choice:
        metrics["downweighted_share"] = context.difficulty.downweighted
        # Samples from non-finite log-probabilities are noise and say nothing about the problems.
        judged = [[]] * len(choice.problems) if sides.broken else _judged(config, gathered.first)
        context.difficulty.record(choice, judged)
    problems = [context.train[index] for index in gathered.chosen]
    record = StepRecord(
        step, time.time(), metrics, _histograms(context, sides, done), _samples(context, step, problems, sides, done)
    )
    unscorable = [(one.score.error or "", one.text) for one in sides.new if one.score.total is None]
    return StepResult(record, done, unscorable)


def _in_order(context: TrainContext, step: int) -> list[int]:
    return step_problems(len(context.train), context.config.rollout.prompts_per_step, step, context.config.run.seed)


def _judged(config: RunConfig, side: Side) -> list[list[float | None]]:
    """Return each completion's score, by group, from the reward that evaluation uses to tell whether it is right."""
    judge = judged_by(config.rewards)[0].name
    place = [reward.name for reward in config.rewards].index(judge)
    name = part_names(config.rewards)[place]
    scores = [one.score.parts[name] for one in side.scored]
    return [scores[start : start + side.group_size] for start in range(0, len(scores), side.group_size)]


def _update(
    context: TrainContext, prompts: list[list[int]], sides: Sides, rate: float, progress: Callable[[float], None]
) -> Update:
    rollout = Rollout(
        [prompt for prompt in prompts for _ in range(context.config.rollout.group_size)],
        [sides.completions.row(row) for row in range(len(sides.policy.scored))],
        context.config.rollout.temperature,
        context.config.rollout.group_size,
        sides.completions.logps,
    )

    def within(phase: Phase, compute: Callable[[int], Result]) -> Result:
        return context.attempt(phase, 1, lambda: compute(context.choices["token_budget"]))

    # With gradient checkpointing, layers are dequantized from 4 bits again and again, which fragments the heap.
    tight = context.choices["checkpointing"] and context.policy.device.type == "cpu"
    with freed_at_once() if tight else nullcontext():
        return update(
            context.policy,
            context.optimizer,
            context.algorithm,
            rollout,
            sides.policy.rewards,
            sides.reference_rewards,
            rate=rate,
            max_grad_norm=context.config.optimizer.max_grad_norm,
            token_budget=context.choices["token_budget"],
            cost=context.cost if context.choices["share_prompts"] else None,
            scale=context.scale,
            updates=context.config.algorithm.updates_per_rollout,
            progress=progress,
            ranks=context.ranks,
            within=within,
            broken=NonFinite("log-prob", sides.broken) if sides.broken else None,
        )


def _metrics(context: TrainContext, first: Side, sides: Sides, done: Update) -> dict[str, float]:
    """Return the step's metrics.

    Rewards are those of the problems chosen ``first``: the groups that replaced them were selected by their rewards.
    """
    rewards = sides.policy.rewards
    completions = sides.completions
    scale = context.scale
    scaling = {"loss_scale": scale.factor, "loss_scale_skipped": float(scale.skipped)} if scale else {}
    return {
        **reward_metrics(first.rewards, sides.reference_rewards, [one.score.parts for one in first.scored]),
        **_signal(context, rewards, done),
        "entropy": float(completions.entropy.sum() / completions.lengths.sum()),
        "completion_tokens": mean(completions.lengths),
        "truncated": mean((~completions.ended).double()),
        "loss": done.loss,
        "grad_norm": done.grad_norm,
        "update_norm": done.update_norm,
        "logp_gap": done.logp_gap,
        "unscorable": float(sum(one.score.total is None for one in sides.new)),
        # The reference cache's content depends on other runs, a budget must not: a cached reference does not count.
        "sampled_completions": float(len(sides.policy.scored if context.bank else sides.new)),
        **scaling,
    }


def _signal(context: TrainContext, rewards: Tensor, done: Update) -> dict[str, float]:
    """Return the advantage's metrics; NaN instead of 0 for terms that the algorithm does not have."""
    algorithm, settings = context.algorithm, context.config.algorithm
    found = advantage_metrics(done.advantages, rewards, settings.margin_low, settings.margin_high)
    if not algorithm.needs_reference_rewards:
        found |= dict.fromkeys(("margin", "margin_low_share", "margin_high_share"), NAN)
    if not algorithm.has_advantages:
        assert done.taught is not None
        taught = mean(done.taught[~torch.isnan(rewards)].double())
        found |= {"advantage_abs": NAN, "teaching_group": NAN, "teaching": taught}
    return found


def _timings(seconds: Mapping[str, float], sides: Sides) -> dict[str, float]:
    """Return each phase's seconds, and completion tokens per second (also the reference's) during the rollout."""
    tokens = sum(one.tokens for one in sides.new)
    return {
        "tokens_per_second": tokens / max(seconds["rollout"], 1e-9),
        **{f"seconds_{phase}": value for phase, value in seconds.items()},
    }


def _histograms(context: TrainContext, sides: Sides, done: Update) -> dict[str, Histogram]:
    values = {"reward": sides.policy.rewards, "completion_tokens": sides.completions.lengths.double()}
    values |= {name: term for name, term in _terms(context.algorithm, done).items() if term is not None}
    if sides.reference:
        values["reference_reward"] = sides.reference.rewards
    return {name: context.edges.histogram(name, value) for name, value in values.items()}


def _terms(algorithm: Algorithm, done: Update) -> dict[str, Tensor | None]:
    """Return the advantage's terms [P, G]; None for those that the algorithm does not have."""
    terms = done.advantages
    return {
        "group_advantage": terms.group if algorithm.has_advantages else None,
        "margin": terms.margin if algorithm.needs_reference_rewards else None,
        "advantage": terms.total if algorithm.has_advantages else None,
    }


def memory_mb(device: torch.device) -> float:
    """Return the peak GPU memory of tensors, or on the CPU this process's resident memory, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return float(psutil.Process().memory_info().rss / 2**20)


def _samples(context: TrainContext, step: int, problems: Sequence[Problem], sides: Sides, done: Update) -> list[Sample]:
    """Return a sample for every completion of the step; only the policy's samples have the advantage's terms."""
    terms = _terms(context.algorithm, done)
    samples = []
    for side in (sides.policy, sides.reference):
        for row, one in enumerate(side.scored if side else []):
            problem = problems[row // sides.policy.group_size]
            own = terms if side is sides.policy else dict.fromkeys(terms)
            group, margin, total = (None if term is None else float(term.reshape(-1)[row]) for term in own.values())
            samples.append(
                Sample(
                    step=step,
                    prompt_id=problem.id,
                    row=row,
                    prompt=problem.problem,
                    completion=one.text,
                    answer=problem.answer,
                    reward=one.score.total,
                    rewards=one.score.parts,
                    group_advantage=group,
                    margin=margin,
                    advantage=total,
                    tokens=one.tokens,
                    truncated=one.truncated,
                    is_reference=side is sides.reference,
                )
            )
    return samples
