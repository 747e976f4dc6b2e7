"""A step's metrics: scalars under stable names, and histograms whose edges are fixed for a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aapo_desk.algorithms import Advantages
from aapo_desk.config import RunConfig
from aapo_desk.rewards import bounds
from aapo_desk.store import Histogram

BINS = 24
NAN = math.nan
NOT_FINITE = "not_finite"
"""A metric that is 1 in a step skipped because of a non-finite number; other steps do not have it."""


@dataclass(frozen=True)
class Edges:
    """The lowest and highest value of each histogram; values outside are counted in the outermost bin."""

    ranges: dict[str, tuple[float, float]]

    @classmethod
    def of(cls, config: RunConfig) -> Edges:
        reward = bounds(config.rewards)
        span = max(reward[1] - reward[0], 1e-6)
        group_size = config.rollout.group_size
        # The largest (r - mean) / std of a group, with the unbiased deviation, is (G - 1) / sqrt(G).
        group = (group_size - 1) / math.sqrt(group_size) if config.algorithm.scale_rewards else span
        low, high = config.algorithm.margin_low, config.algorithm.margin_high
        return cls(
            {
                "group_advantage": (-group, group),
                "margin": (low, high) if high > low else (low - 1e-6, high + 1e-6),
                "advantage": (min(-group, -group + low), max(group, group + high)),
                "reward": reward if reward[1] > reward[0] else (reward[0], reward[0] + span),
                "reference_reward": reward if reward[1] > reward[0] else (reward[0], reward[0] + span),
                "completion_tokens": (0.0, float(config.rollout.max_new_tokens)),
            }
        )

    def histogram(self, name: str, values: Tensor) -> Histogram:
        """Return the histogram of the finite ones among ``values``."""
        low, high = self.ranges[name]
        finite = values[torch.isfinite(values)].double().clamp(low, high)
        counts = torch.histc(finite, bins=BINS, min=low, max=high) if len(finite) else torch.zeros(BINS)
        return Histogram(low, high, [int(count) for count in counts])


def mean(values: Tensor) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    return float(values.double().nanmean()) if values.numel() else NAN


def reward_metrics(
    rewards: Tensor, reference: Tensor | None, parts: Sequence[dict[str, float | None]]
) -> dict[str, float]:
    """Return the reward metrics.

    They are computed from the policy's rewards [P, G], the reference's [P, G] and each policy row's scores by function.
    """
    scorable = rewards[~torch.isnan(rewards)]
    values = {
        "reward": mean(rewards),
        "reward_std": float(scorable.std()) if len(scorable) > 1 else NAN,
        "reference_reward": mean(reference) if reference is not None else NAN,
    }
    for name in dict.fromkeys(name for part in parts for name in part):
        scores = [score for part in parts if (score := part.get(name)) is not None]
        values[f"reward/{name}"] = sum(scores) / len(scores) if scores else NAN
    return values


def advantage_metrics(advantages: Advantages, rewards: Tensor, low: float, high: float) -> dict[str, float]:
    """Return the metrics of the advantage's terms [P, G] over the scorable rows.

    ``teaching`` is the share of rows whose advantage is not 0.
    """
    rows = ~torch.isnan(rewards)
    group, margin, total = advantages.group[rows], advantages.margin[rows], advantages.total[rows]
    return {
        "advantage_abs": mean(total.abs()),
        "margin": mean(margin),
        "margin_low_share": mean((margin <= low).double()),
        "margin_high_share": mean((margin >= high).double()),
        "teaching_group": mean((group != 0).double()),
        "teaching": mean((total != 0).double()),
    }
