"""What the monitor can draw over the steps: each chart's series, its unit, and a line that says how to read it."""

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
    """A metric and what it is called; ``short``: where there is little room."""

    key: str
    label: str = ""
    short: str = ""


@dataclass(frozen=True)
class ChartSpec:
    """A chart. The first curve leads: its raw values are shown behind.

    ``span`` is always in sight. ``insists``: the note is shown however small the chart. ``part``: what is shown below
    it in a narrow terminal. ``histogram``: a heat map of these instead of curves.
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
    """A number of any size in three digits: ``0.412``, ``2e-05``."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3g}"


def seconds(value: float | None) -> str:
    return f"{number(value, 1)} s"


SHARE = (0.0, 1.0)
CHARTS = (
    ChartSpec(
        "reward",
        "reward",
        (Curve("reward", "policy"), Curve("reference_reward", "reference", "ref.")),
        "It learns while the policy rises above the reference.",
    ),
    ChartSpec(
        "teaching",
        "rows that teach",
        (Curve("teaching", "with margin", "all"), Curve("teaching_group", "group alone", "group")),
        "Completions with an advantage. The margin teaches where a whole group agrees.",
        percent,
        SHARE,
    ),
    ChartSpec(
        "advantage_map",
        "advantage over time",
        note="Each column is a step's histogram. All at 0: nothing is learnt from.",
        histogram="advantage",
    ),
    ChartSpec(
        "completion_tokens",
        "completion length",
        (Curve("completion_tokens"),),
        "Tokens a completion, the mean.",
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
        "Nats a token. Near 0 the policy has stopped trying anything new.",
        figure,
    ),
    ChartSpec(
        "grad_norm", "gradient norm", (Curve("grad_norm"),), "Before clipping. Usual: between 0.001 and 1.", figure
    ),
    ChartSpec(
        "update_norm",
        "update norm",
        (Curve("update_norm"),),
        "How far a step moves the adapter. 0: it does not move.",
        figure,
    ),
    ChartSpec(
        "learning_rate", "learning rate", (Curve("learning_rate"),), "As the schedule says.", figure, smooth=False
    ),
    ChartSpec("loss", "loss", (Curve("loss"),), "Stays near 0 while it learns: watch reward.", figure, insists=True),
    ChartSpec(
        "logp_gap",
        "rollout-update gap",
        (Curve("logp_gap"),),
        "Log-probs of sampling and update apart, nats a token. Should stay small.",
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
        "On a GPU the most that tensors took, else all that the trainer holds.",
        memory,
        smooth=False,
        part="machine",
    ),
)
BY_NAME = {spec.name: spec for spec in CHARTS}
BY_NAME_WITHOUT_MARGIN = BY_NAME | {
    "reward": replace(
        BY_NAME["reward"], curves=(Curve("reward", "policy"),), note="It learns while this rises over many steps."
    ),
    "teaching": replace(
        BY_NAME["teaching"],
        curves=(Curve("teaching", "share"),),
        note="Completions with an advantage. Where a whole group agrees, none has one.",
    ),
}
"""The same of a method that compares with no reference."""
