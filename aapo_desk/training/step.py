"""One step: sample, score, update. What it leaves behind is a ``StepRecord``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import psutil
import torch

from aapo_desk.algorithms import Algorithm
from aapo_desk.config import RunConfig
from aapo_desk.evaluation.held_out import judged_by
from aapo_desk.models.policy import Policy
from aapo_desk.rewards import RewardPool, part_names
from aapo_desk.rollout import (
    BankedReference,
    Drawn,
    Lookup,
    Row,
    Sampling,
    Side,
    Sides,
    decode,
    derive_seed,
    score,
    uniforms,
)
from aapo_desk.store import Histogram, Sample, StepRecord
from aapo_desk.tasks import Problem
from aapo_desk.tasks.difficulty import Difficulty
from aapo_desk.tasks.order import step_problems
from aapo_desk.training.metrics import Edges, advantage_metrics, mean, reward_metrics
from aapo_desk.training.packing import Cost
from aapo_desk.training.peaks import give_back
from aapo_desk.training.scaling import LossScale
from aapo_desk.training.update import Rollout, Update, learning_rate, update

Report = Callable[[str, float | None], None]
"""Phase and its progress, 0 to 1."""


@dataclass
class Parts:
    """All that a step works with."""

    config: RunConfig
    policy: Policy
    algorithm: Algorithm
    optimizer: torch.optim.Optimizer
    pool: RewardPool
    train: list[Problem]
    prompts: list[list[int]]
    """Token ids of each training problem's prompt."""
    choices: dict[str, int]
    """What was chosen for this device and model. Kept in the run's record and replayed."""
    bank: BankedReference | None = None
    """None: the reference is sampled in each step, where it is needed."""
    difficulty: Difficulty | None = None
    """None: problems come evenly."""
    edges: Edges = field(init=False)
    cost: Cost = field(init=False)
    scale: LossScale | None = field(init=False)
    """Where the model computes in float16."""

    def __post_init__(self) -> None:
        self.edges = Edges.of(self.config)
        self.scale = LossScale.for_policy(self.policy)
        self.cost = Cost.of(self.policy.causal.config.get_text_config())


@dataclass(frozen=True)
class StepResult:
    record: StepRecord
    update: Update
    unscorable: list[tuple[str, str]]
    """Why and which completion, of each that could not be scored."""


def run_step(parts: Parts, step: int, report: Report) -> StepResult:
    """Step number ``step`` (from 1). Everything random follows from the run's seed and the step's number."""
    config = parts.config
    torch.manual_seed(derive_seed(config.run.seed, "step", step))
    choice = parts.difficulty.choose(config.rollout.prompts_per_step) if parts.difficulty else None
    chosen = choice.problems if choice else _in_order(parts, step)
    problems = [parts.train[index] for index in chosen]
    prompts = [parts.prompts[index] for index in chosen]

    _make_room(parts)
    clock = [time.perf_counter()]
    banked = parts.bank.look_up(prompts, problems) if parts.bank else None
    drawn = _roll_out(parts, problems, prompts, banked, step, lambda share: report("rollout", share))
    clock.append(time.perf_counter())
    report("reward", None)
    sides = _score(parts, drawn, banked)
    clock.append(time.perf_counter())
    _make_room(parts)
    report("update", 0.0)
    rate = learning_rate(config.optimizer, step, config.run.steps)
    done = _update(parts, prompts, sides, rate, lambda share: report("update", share))
    clock.append(time.perf_counter())

    metrics = _metrics(parts, sides, done) | _timings(clock, sides)
    metrics |= {"learning_rate": rate, "memory_mb": memory_mb(parts.policy.device)}
    if parts.difficulty and choice:
        metrics["downweighted_share"] = parts.difficulty.downweighted
        parts.difficulty.record(choice, _judged(config, sides.policy))
    record = StepRecord(
        step, time.time(), metrics, _histograms(parts, sides, done), _samples(step, problems, sides, done)
    )
    unscorable = [(one.score.error or "", one.text) for one in sides.new if one.score.total is None]
    return StepResult(record, done, unscorable)


def _make_room(parts: Parts) -> None:
    """Where memory is short, what a phase has freed goes back before the next one begins."""
    if parts.choices["checkpointing"]:
        give_back(parts.policy.device)


def _in_order(parts: Parts, step: int) -> list[int]:
    return step_problems(len(parts.train), parts.config.rollout.prompts_per_step, step, parts.config.run.seed)


def _judged(config: RunConfig, side: Side) -> list[list[float | None]]:
    """The score of each completion, by group, of the reward that tells whether it is right: evaluation's judge."""
    judge = judged_by(config.rewards)[0].name
    place = [reward.name for reward in config.rewards].index(judge)
    name = part_names(config.rewards)[place]
    scores = [one.score.parts[name] for one in side.scored]
    return [scores[start : start + side.group_size] for start in range(0, len(scores), side.group_size)]


def _update(
    parts: Parts, prompts: list[list[int]], sides: Sides, rate: float, progress: Callable[[float], None]
) -> Update:
    rollout = Rollout(
        [prompt for prompt in prompts for _ in range(parts.config.rollout.group_size)],
        [sides.completions.row(row) for row in range(len(sides.policy.scored))],
        parts.config.rollout.temperature,
        parts.config.rollout.group_size,
        sides.completions.logps,
    )
    return update(
        parts.policy,
        parts.optimizer,
        parts.algorithm,
        rollout,
        sides.policy.rewards,
        sides.reference_rewards,
        rate=rate,
        max_grad_norm=parts.config.optimizer.max_grad_norm,
        token_budget=parts.choices["token_budget"],
        cost=parts.cost if parts.choices["share_prompts"] else None,
        scale=parts.scale,
        progress=progress,
    )


def _roll_out(
    parts: Parts,
    problems: Sequence[Problem],
    prompts: Sequence[list[int]],
    banked: Lookup | None,
    step: int,
    progress: Callable[[float], None],
) -> list[Drawn]:
    """The policy's completions and, where the algorithm needs them, the reference's, sampled in one batch.

    With a bank the reference's are those of the prompts that it lacks, in a batch of their own.
    """
    config = parts.config.rollout
    sides = [True, False] if parts.algorithm.needs_reference_rewards and banked is None else [True]
    groups = range(config.group_size)
    rows = [Row(prompt, adapter) for adapter in sides for prompt in range(len(prompts)) for _ in groups]
    numbers = uniforms(len(rows), config.max_new_tokens, derive_seed(parts.config.run.seed, "rollout", step))
    batch_rows = parts.choices["batch_rows"]
    fixed = bool(parts.choices["fixed_steps"])
    first = len(prompts) / (len(prompts) + len(banked.missing if banked else []))
    done = decode(
        parts.policy,
        prompts,
        rows,
        config.max_new_tokens,
        Sampling.of(config),
        numbers,
        batch_rows,
        progress=lambda share: progress(first * share),
        fixed=fixed,
    )
    half = len(prompts) * config.group_size
    drawn = [Drawn(done.take(range(start, start + half)), problems) for start in range(0, len(rows), half)]
    if banked:
        drawn += banked.draw(batch_rows, lambda share: progress(first + (1 - first) * share), fixed)
    return drawn


def _score(parts: Parts, drawn: Sequence[Drawn], banked: Lookup | None) -> Sides:
    config = parts.config.rollout
    policy, *others = score(parts.pool, parts.policy.tokenizer, drawn, config.max_new_tokens)
    sampled = [one for side in others for one in side]
    reference = banked.complete(sampled) if banked else sampled
    return Sides(
        drawn[0].completions,
        Side(policy, config.group_size),
        Side(reference, config.group_size) if parts.algorithm.needs_reference_rewards else None,
        policy + sampled,
    )


def _metrics(parts: Parts, sides: Sides, done: Update) -> dict[str, float]:
    rewards = sides.policy.rewards
    algorithm = parts.config.algorithm
    completions = sides.completions
    scale = parts.scale
    scaling = {"loss_scale": scale.factor, "loss_scale_skipped": float(scale.skipped)} if scale else {}
    return {
        **reward_metrics(rewards, sides.reference_rewards, [one.score.parts for one in sides.policy.scored]),
        **advantage_metrics(done.advantages, rewards, algorithm.margin_low, algorithm.margin_high),
        "entropy": float(completions.entropy.sum() / completions.lengths.sum()),
        "completion_tokens": mean(completions.lengths),
        "truncated": mean((~completions.ended).double()),
        "loss": done.loss,
        "grad_norm": done.grad_norm,
        "update_norm": done.update_norm,
        "logp_gap": done.logp_gap,
        "unscorable": float(sum(one.score.total is None for one in sides.new)),
        **scaling,
    }


def _timings(clock: Sequence[float], sides: Sides) -> dict[str, float]:
    """Seconds of each phase, and completion tokens a second (the reference's too) while decoding."""
    rollout, reward, update_seconds = (after - before for before, after in pairwise(clock))
    tokens = sum(one.tokens for one in sides.new)
    return {
        "tokens_per_second": tokens / max(rollout, 1e-9),
        "seconds_rollout": rollout,
        "seconds_reward": reward,
        "seconds_update": update_seconds,
    }


def _histograms(parts: Parts, sides: Sides, done: Update) -> dict[str, Histogram]:
    values = {
        "group_advantage": done.advantages.group,
        "margin": done.advantages.margin,
        "advantage": done.advantages.total,
        "reward": sides.policy.rewards,
        "completion_tokens": sides.completions.lengths.double(),
    }
    if sides.reference:
        values["reference_reward"] = sides.reference.rewards
    return {name: parts.edges.histogram(name, value) for name, value in values.items()}


def memory_mb(device: torch.device) -> float:
    """The GPU memory that tensors have taken at the most, or this process's resident memory, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return float(psutil.Process().memory_info().rss / 2**20)


def _samples(step: int, problems: Sequence[Problem], sides: Sides, done: Update) -> list[Sample]:
    """Every completion of the step; the advantage's terms stand with the policy's."""
    terms = [value.reshape(-1) for value in (done.advantages.group, done.advantages.margin, done.advantages.total)]
    samples = []
    for side in (sides.policy, sides.reference):
        for row, one in enumerate(side.scored if side else []):
            problem = problems[row // sides.policy.group_size]
            group, margin, total = (float(term[row]) if side is sides.policy else None for term in terms)
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
