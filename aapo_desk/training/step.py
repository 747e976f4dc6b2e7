"""One step: sample, score, update. What it leaves behind is a ``StepRecord``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import psutil
import torch
from torch import Tensor

from aapo_desk.algorithms import Algorithm
from aapo_desk.config import RunConfig
from aapo_desk.models.policy import Policy
from aapo_desk.rewards import Completion, RewardPool, Score
from aapo_desk.rollout import Completions, Row, Sampling, decode, derive_seed, uniforms
from aapo_desk.store import Histogram, Sample, StepRecord
from aapo_desk.tasks import Problem
from aapo_desk.tasks.order import step_problems
from aapo_desk.training.metrics import NAN, Edges, advantage_metrics, mean, reward_metrics
from aapo_desk.training.packing import Cost
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
    edges: Edges = field(init=False)
    cost: Cost = field(init=False)

    def __post_init__(self) -> None:
        self.edges = Edges.of(self.config)
        self.cost = Cost.of(self.policy.causal.config.get_text_config())


@dataclass(frozen=True)
class Side:
    """One side's completions of a step, in rows p·G + g, with their texts and scores."""

    completions: Completions
    texts: list[str]
    scores: list[Score]
    group_size: int

    @property
    def rewards(self) -> Tensor:
        """[P, G] float64, NaN where unscorable."""
        totals = [NAN if score.total is None else score.total for score in self.scores]
        return torch.tensor(totals, dtype=torch.float64).reshape(-1, self.group_size)


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
    chosen = step_problems(len(parts.train), config.rollout.prompts_per_step, step, config.run.seed)
    problems = [parts.train[index] for index in chosen]
    prompts = [parts.prompts[index] for index in chosen]

    clock = [time.perf_counter()]
    completions = _roll_out(parts, prompts, step, lambda share: report("rollout", share))
    clock.append(time.perf_counter())
    report("reward", None)
    sides = _score(parts, problems, completions)
    clock.append(time.perf_counter())
    report("update", 0.0)
    rate = learning_rate(config.optimizer, step, config.run.steps)
    done = _update(parts, prompts, sides, rate, lambda share: report("update", share))
    clock.append(time.perf_counter())

    metrics = _metrics(parts, sides, done) | _timings(clock, sides)
    metrics |= {"learning_rate": rate, "memory_mb": memory_mb(parts.policy.device)}
    record = StepRecord(
        step, time.time(), metrics, _histograms(parts, sides, done), _samples(step, problems, sides, done)
    )
    unscorable = [
        (score.error or "", text)
        for side in sides
        for score, text in zip(side.scores, side.texts, strict=True)
        if score.total is None
    ]
    return StepResult(record, done, unscorable)


def _update(
    parts: Parts, prompts: list[list[int]], sides: Sequence[Side], rate: float, progress: Callable[[float], None]
) -> Update:
    policy_side = sides[0]
    rollout = Rollout(
        [prompt for prompt in prompts for _ in range(parts.config.rollout.group_size)],
        [policy_side.completions.row(row) for row in range(len(policy_side.texts))],
        parts.config.rollout.temperature,
        parts.config.rollout.group_size,
        policy_side.completions.logps,
    )
    return update(
        parts.policy,
        parts.optimizer,
        parts.algorithm,
        rollout,
        policy_side.rewards,
        sides[1].rewards if len(sides) > 1 else None,
        rate=rate,
        max_grad_norm=parts.config.optimizer.max_grad_norm,
        token_budget=parts.choices["token_budget"],
        cost=parts.cost if parts.choices["share_prompts"] else None,
        progress=progress,
    )


def _roll_out(
    parts: Parts, prompts: Sequence[list[int]], step: int, progress: Callable[[float], None]
) -> list[Completions]:
    """The policy's completions and, where the algorithm needs them, the reference's, sampled in one batch."""
    config = parts.config.rollout
    sides = [True, False] if parts.algorithm.needs_reference_rewards else [True]
    groups = range(config.group_size)
    rows = [Row(prompt, adapter) for adapter in sides for prompt in range(len(prompts)) for _ in groups]
    numbers = uniforms(len(rows), config.max_new_tokens, derive_seed(parts.config.run.seed, "rollout", step))
    batch_rows = parts.choices["batch_rows"]
    fixed = bool(parts.choices.get("fixed_steps"))
    done = decode(
        parts.policy, prompts, rows, config.max_new_tokens, Sampling.of(config), numbers, batch_rows, progress, fixed
    )
    half = len(prompts) * config.group_size
    return [done.take(range(start, start + half)) for start in range(0, len(rows), half)]


def _score(parts: Parts, problems: Sequence[Problem], completions: Sequence[Completions]) -> list[Side]:
    """Score both sides in one go, so that all workers are kept busy."""
    group_size = parts.config.rollout.group_size
    texts = [decode_texts(parts.policy.tokenizer, side) for side in completions]
    asked = [
        Completion(
            text=text,
            problem=problems[row // group_size].problem,
            answer=problems[row // group_size].answer,
            tokens=int(side.lengths[row]),
            max_tokens=parts.config.rollout.max_new_tokens,
            truncated=not bool(side.ended[row]),
        )
        for side, side_texts in zip(completions, texts, strict=True)
        for row, text in enumerate(side_texts)
    ]
    scores = parts.pool.score(asked)
    size = len(texts[0])
    return [
        Side(side, side_texts, scores[number * size : (number + 1) * size], group_size)
        for number, (side, side_texts) in enumerate(zip(completions, texts, strict=True))
    ]


def decode_texts(tokenizer: Any, completions: Completions) -> list[str]:
    """The completions as text, without the tokens that end them."""
    rows = [completions.row(row) for row in range(len(completions.lengths))]
    texts: list[str] = tokenizer.batch_decode(rows, skip_special_tokens=True)
    return texts


def _metrics(parts: Parts, sides: Sequence[Side], done: Update) -> dict[str, float]:
    side = sides[0]
    reference_rewards = sides[1].rewards if len(sides) > 1 else None
    algorithm = parts.config.algorithm
    tokens = side.completions.lengths
    return {
        **reward_metrics(side.rewards, reference_rewards, [score.parts for score in side.scores]),
        **advantage_metrics(done.advantages, side.rewards, algorithm.margin_low, algorithm.margin_high),
        "entropy": float(side.completions.entropy.sum() / tokens.sum()),
        "completion_tokens": mean(tokens),
        "truncated": mean((~side.completions.ended).double()),
        "loss": done.loss,
        "grad_norm": done.grad_norm,
        "update_norm": done.update_norm,
        "logp_gap": done.logp_gap,
        "unscorable": float(sum(score.total is None for one in sides for score in one.scores)),
    }


def _timings(clock: Sequence[float], sides: Sequence[Side]) -> dict[str, float]:
    """Seconds of each phase, and completion tokens a second (the reference's too) while decoding."""
    rollout, reward, update_seconds = (after - before for before, after in pairwise(clock))
    tokens = sum(int(side.completions.lengths.sum()) for side in sides)
    return {
        "tokens_per_second": tokens / max(rollout, 1e-9),
        "seconds_rollout": rollout,
        "seconds_reward": reward,
        "seconds_update": update_seconds,
    }


def _histograms(parts: Parts, sides: Sequence[Side], done: Update) -> dict[str, Histogram]:
    values = {
        "group_advantage": done.advantages.group,
        "margin": done.advantages.margin,
        "advantage": done.advantages.total,
        "reward": sides[0].rewards,
        "completion_tokens": sides[0].completions.lengths.double(),
    }
    if len(sides) > 1:
        values["reference_reward"] = sides[1].rewards
    return {name: parts.edges.histogram(name, value) for name, value in values.items()}


def memory_mb(device: torch.device) -> float:
    """The GPU memory that tensors have taken at the most, or this process's resident memory, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return float(psutil.Process().memory_info().rss / 2**20)


def _samples(step: int, problems: Sequence[Problem], sides: Sequence[Side], done: Update) -> list[Sample]:
    """Every completion of the step; the advantage's terms stand with the policy's."""
    terms = [value.reshape(-1) for value in (done.advantages.group, done.advantages.margin, done.advantages.total)]
    samples = []
    for number, side in enumerate(sides):
        for row, (text, score) in enumerate(zip(side.texts, side.scores, strict=True)):
            problem = problems[row // side.group_size]
            group, margin, total = (float(term[row]) for term in terms) if number == 0 else (None, None, None)
            samples.append(
                Sample(
                    step=step,
                    prompt_id=problem.id,
                    row=row,
                    prompt=problem.problem,
                    completion=text,
                    answer=problem.answer,
                    reward=score.total,
                    rewards=score.parts,
                    group_advantage=group,
                    margin=margin,
                    advantage=total,
                    tokens=int(side.completions.lengths[row]),
                    truncated=not bool(side.completions.ended[row]),
                    is_reference=number == 1,
                )
            )
    return samples
