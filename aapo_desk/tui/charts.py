"""The monitor's charts over the steps: each one's curves, its unit, and a note on how to read it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from aapo_desk.tui.labels import memory, number, percent

Form = Callable[[float | None], str]
Part = Literal["teaching", "phases", "machine"]


@dataclass(frozen=True)
class Curve:
    """A metric to draw, and its label; ``short`` is the label for small charts."""

    key: str
    label: str = ""
    short: str = ""


@dataclass(frozen=True)
class ChartSpec:
    """A chart. The raw values of the first curve are drawn behind its smoothed line.

    ``form`` formats a value. ``span`` (low, high) is always within the y axis. ``insists``: the note is shown however
    small the chart is. ``part``: the panel shown below the chart in a narrow terminal. ``histogram``: the name of a
    histogram to draw as a heat map over the steps instead of curves.
    """

    name: str
    title: str
    curves: tuple[Curve, ...] = ()
    note: str = ""
    form: Form = number
    span: tuple[float, float] | None = None
    smooth: bool = True
    insists: bool = False
    part: Part = "teaching"
    histogram: str = ""


def figure(value: float | None) -> str:
    """Format a number of any size with three significant digits: ``0.412``, ``2e-05``."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3g}"


def seconds(value: float | None) -> str:
    return f"{number(value, 1)} s"


SHARE = (0.0, 1.0)
CHARTS = (
    ChartSpec(
        "reward",
        "reward",
        (Curve("reward", "policy"), Curve("reference_reward", "reference", "ref.")),
        "The policy learns while it rises above the reference.",
    ),
    ChartSpec(
        "teaching",
        "rows that teach",
        (Curve("teaching", "with margin", "all"), Curve("teaching_group", "group alone", "group")),
        "Completions with an advantage. The margin gives one even if a group ties.",
        percent,
        SHARE,
    ),
    ChartSpec(
        "advantage_map",
        "advantage over time",
        note="Each column is a step's histogram. All at 0: nothing to learn from.",
        histogram="advantage",
    ),
    ChartSpec(
        "completion_tokens",
        "completion length",
        (Curve("completion_tokens"),),
        "Mean tokens per completion.",
        lambda value: number(value, 1),
    ),
    ChartSpec(
        "truncated",
        "truncated",
        (Curve("truncated"),),
        "Completions cut off at max_new_tokens. Usual: below 30 %.",
        percent,
        SHARE,
    ),
    ChartSpec(
        "entropy",
        "entropy",
        (Curve("entropy"),),
        "Nats per token. Near 0, the policy no longer explores.",
        figure,
    ),
    ChartSpec(
        "grad_norm", "gradient norm", (Curve("grad_norm"),), "Before clipping. Usual: between 0.001 and 1.", figure
    ),
    ChartSpec(
        "update_norm",
        "update norm",
        (Curve("update_norm"),),
        "How far a step moves the adapter. 0: the adapter does not change.",
        figure,
    ),
    ChartSpec(
        "learning_rate", "learning rate", (Curve("learning_rate"),), "Set by the schedule.", figure, smooth=False
    ),
    ChartSpec("loss", "loss", (Curve("loss"),), "Stays near 0 while it learns: watch reward.", figure, insists=True),
    ChartSpec(
        "logp_gap",
        "rollout-update gap",
        (Curve("logp_gap"),),
        "Log-probs of rollout against update, nats per token. Should stay small.",
        figure,
    ),
    ChartSpec(
        "seconds",
        "seconds by phase",
        (
            Curve("seconds_rollout", "rollout", "roll"),
            Curve("seconds_update", "update", "upd."),
            Curve("seconds_reward", "reward", "rew."),
        ),
        "Where the time of a step goes.",
        seconds,
        part="phases",
    ),
    ChartSpec(
        "memory_mb",
        "memory",
        (Curve("memory_mb"),),
        "GPU: peak memory of tensors. CPU: all memory of the trainer process.",
        memory,
        smooth=False,
        part="machine",
    ),
)
BY_NAME = {spec.name: spec for spec in CHARTS}
BY_NAME_WITHOUT_MARGIN = BY_NAME | {
    "reward": replace(
        BY_NAME["reward"],
        curves=(Curve("reward", "policy"),),
        note="The policy learns while this rises over many steps.",
    ),
    "teaching": replace(
        BY_NAME["teaching"],
        curves=(Curve("teaching", "share"),),
        note="Completions with an advantage. A group that ties has none.",
    ),
}
"""The charts by name for a method without a reference."""
