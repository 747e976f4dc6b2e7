from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from aapo_desk.config import RunConfig, resolve
from aapo_desk.health import BEGINS, ENDS, KINDS, Alarm, Facts, check, standing
from aapo_desk.store import event_words

Series = float | None | Sequence[float | None]
Steps = list[tuple[int, dict[str, float | None]]]

# The 20 steps of a demo run that learned to add, rounded to two digits.
DEMO = {
    "reward": "0.16 0.22 0.12 0.094 0.53 0.25 0.38 0.22 0.5 0.34 0.66 0.91 0.78 0.69 0.44 0.34 0.16 0.69 0.75 0.88",
    "entropy": "1.2 0.94 0.72 0.56 0.45 0.38 0.4 0.48 0.39 0.32 0.38 0.27 0.33 0.38 0.29 0.28 0.32 0.31 0.18 0.27",
    "grad_norm": "0.42 0.64 0.79 0.48 0.85 0.72 0.73 0.65 0.95 0.59 0.51 0.74 0.78 0.79 0.38 1.4 0.52 0.75 0.093 0.64",
    "update_norm": "0.32 0.32 0.26 0.22 0.21 0.18 0.16 0.13 0.13 0.11 0.091 0.082 0.066 0.051 0.036 0.027 0.018 0.0088 "
    "0.0036 9.3e-04",
    "truncated": "0.53 0.62 0.41 0.41 0.38 0.34 0.44 0.38 0.34 0.34 0.25 0.31 0.25 0.25 0.094 0.12 0.25 0.31 0.12 0.31",
    "teaching": "0.5 0.75 0.5 0.31 0.69 0.5 0.75 0.75 1 0.5 0.72 0.91 0.94 1 0.41 0.5 0.5 0.56 0.62 0.97",
    "margin_low_share": "0.19 0.16 0.16 0.12 0.031 0.062 0.062 0.094 0 0 0.031 0.031 0 0 0.031 0 0 0.031 0 0.031",
    "margin_high_share": "0.031 0.16 0.094 0.062 0.47 0.19 0.25 0.19 0.44 0.28 0.47 0.62 0.69 0.56 0.34 0.34 0.16 0.5 "
    "0.62 0.66",
    "loss": "-0.19 -0.27 -0.14 0.049 -0.061 0.0054 -0.085 -0.078 -0.11 -0.011 -0.021 -0.094 -0.051 -0.064 -0.093 "
    "9.6e-04 -0.048 0.077 0.035 -0.064",
    "logp_gap": "5e-06 " * 20,
    "unscorable": "0 " * 20,
}
DEMO_EVALUATIONS = {0: (None, None), 10: (0.22, 0.39), 20: (0.27, 0.45)}


def demo(count: int = 20, **changes: Series) -> Steps:
    """The demo's steps, the last ones again and again; ``changes``: a metric's one value, or its last steps'."""
    columns: dict[str, list[float | None]] = {}
    for key, text in DEMO.items():
        values: list[float | None] = [float(value) for value in text.split()]
        columns[key] = [*values, *(values[10 + index % 10] for index in range(count - 20))][:count]
    for key, change in changes.items():
        last = list(change) if isinstance(change, Sequence) else [change] * count
        columns[key][count - len(last) :] = last
    return [(step + 1, {key: values[step] for key, values in columns.items()}) for step in range(count)]


def evaluations(gains: dict[int, tuple[float | None, float | None]]) -> dict[int, dict[str, Any]]:
    """As the store gives them: the paired gains of greedy and of sampled answers, where there are any."""

    def gain(mean: float | None) -> dict[str, float] | None:
        return None if mean is None else {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}

    return {step: {"difference": gain(one), "difference_sampled": gain(two)} for step, (one, two) in gains.items()}


def config(**sets: Any) -> RunConfig:
    data = {"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}, "rollout": {"max_new_tokens": 12}}
    return resolve(data, {key.replace("__", "."): value for key, value in sets.items()})


ROOM = Facts(memory_used=4000.0, memory_total=8192.0, memory="the GPU's memory")
FLAT = {0: (None, None), 40: (0.01, -0.02)}
UPWARD = config(algorithm__margin_low=0.0)


def alarms(
    steps: Steps,
    gains: dict[int, tuple[float | None, float | None]] | None = None,
    settings: RunConfig | None = None,
    facts: Facts = ROOM,
    before: Sequence[Alarm] = (),
) -> list[Alarm]:
    return check(steps, evaluations(gains or {}), settings or config(), facts, before)


RAISED: list[tuple[str, Callable[[], list[Alarm]], list[str]]] = [
    ("truncation", lambda: alarms(demo(30, truncated=[0.52] * 10)), ["52%", "12 tokens"]),
    ("no_reward", lambda: alarms(demo(30, reward=[0.0] * 20)), ["last 20", "0.00"]),
    ("no_signal", lambda: alarms(demo(30, teaching=[0.03, 0.0] * 5)), ["1.5%"]),
    (
        "margin_saturated",
        lambda: alarms(demo(30, margin_high_share=[0.97] * 10, margin_low_share=0.0)),
        ["97%", "0.28"],
    ),
    ("gradient", lambda: alarms(demo(30, grad_norm=[2.5] * 10)), ["2.5", "max_grad_norm = 1"]),
    ("gradient", lambda: alarms(demo(30, grad_norm=[9.0, 0.5, 0.5, 12.0])), ["2 of the last 20", "12", "step 30"]),
    ("gradient", lambda: alarms(demo(30, grad_norm=[4e-4] * 10)), ["0.0004"]),
    ("entropy_collapse", lambda: alarms(demo(30, entropy=[0.04] * 10)), ["0.040 nats"]),
    ("non_finite", lambda: alarms(demo(30, loss=[None, 0.1, math.nan, 0.1, None])), ["3 of the last 10"]),
    ("non_finite", lambda: alarms(demo(30, grad_norm=[math.inf] * 3)), ["3 of the last 10"]),
    ("unscorable", lambda: alarms(demo(30, unscorable=[9.0] * 10)), ["90 of 640", "math"]),
    ("adapter_still", lambda: alarms(demo(30, update_norm=[0.0] * 10)), ["10 of the last 10", "did not change"]),
    ("adapter_still", lambda: alarms(demo(30), facts=replace(ROOM, adapter_zero=True)), ["lora_B"]),
    ("disagreement", lambda: alarms(demo(30, logp_gap=[0.02] * 3)), ["0.020 nats", "0.01"]),
    (
        "disagreement",
        lambda: alarms(demo(30, logp_gap=0.2), facts=replace(ROOM, exact=False)),
        ["0.200 nats", "only 0.1:"],
    ),
    ("memory", lambda: alarms(demo(30), facts=replace(ROOM, memory_used=7700.0)), ["7.5 of 8.0 GB of the GPU"]),
    (
        "unscorable",
        lambda: alarms(demo(30, unscorable=[4.0] * 10), settings=config(algorithm__name="grpo")),
        ["40 of 320"],  # no reference is scored
    ),
    ("evaluation_flat", lambda: alarms(demo(40), FLAT), ["+0.01 (greedy) and -0.02 (sampled)", "step 40"]),
]

ALMOST: list[tuple[str, Callable[[], list[Alarm]]]] = [
    ("half are cut off, not more", lambda: alarms(demo(30, truncated=[0.5] * 10))),
    ("one step of twenty had a reward", lambda: alarms(demo(30, reward=[0.03] + [0.0] * 19))),
    (
        "a reward of 0 is the best that a penalty gives",
        lambda: alarms(demo(30, reward=0.0), facts=replace(ROOM, most_reward=0.0)),
    ),
    ("two rows of 32 have an advantage", lambda: alarms(demo(30, teaching=[2 / 32] * 10))),
    ("no group has a deviation, the margin teaches", lambda: alarms(with_margin_alone(30))),
    ("nine in ten margins at a bound", lambda: alarms(demo(30, margin_high_share=[0.9] * 10))),
    ("grpo has no margin", lambda: alarms(demo(30, margin_high_share=1.0), settings=config(algorithm__name="grpo"))),
    ("a bound of 0 is none to be at", lambda: alarms(demo(30, margin_low_share=0.9), settings=UPWARD)),
    ("a median norm above the healthy range, within the leeway", lambda: alarms(demo(30, grad_norm=[1.8] * 10))),
    ("a single spike", lambda: alarms(demo(30, grad_norm=[40.0, 0.5, 0.5, 0.5]))),
    ("a small norm where nothing was to be learned", lambda: alarms(demo(30, grad_norm=[0.0] * 6, teaching=[0.0] * 6))),
    ("the lowest healthy entropy", lambda: alarms(demo(30, entropy=[0.051] * 10))),
    ("little entropy where the problems are solved", lambda: alarms(demo(30, entropy=0.01, reward=[0.97] * 10))),
    ("two steps that are not finite", lambda: alarms(demo(30, loss=[None, None]))),
    ("a tenth of the answers unscorable", lambda: alarms(demo(30, unscorable=[6.4] * 10))),
    ("nine updates of 0", lambda: alarms(demo(30, update_norm=[0.001] + [0.0] * 9))),
    ("no update where nothing was to be learned", lambda: alarms(demo(30, update_norm=[0.0] * 6, teaching=[0.0] * 6))),
    (
        "a gap that rounding to 16 bits explains",
        lambda: alarms(demo(30, logp_gap=0.09), facts=replace(ROOM, exact=False)),
    ),
    ("a gap of dropout's making", lambda: alarms(demo(30, logp_gap=0.3), settings=config(lora__dropout=0.1))),
    ("a tenth of the memory left", lambda: alarms(demo(30), facts=replace(ROOM, memory_used=7372.0))),
    ("an accuracy that rises with the reward", lambda: alarms(demo(40), {0: (None, None), 40: (0.12, 0.02)})),
    ("sampled answers gain, greedy ones do not", lambda: alarms(demo(40), {0: (None, None), 40: (-0.02, 0.2)})),
    ("neither rises", lambda: alarms(demo(40, reward=[0.3] * 40), FLAT)),
    ("the last steps are the first ones too", lambda: alarms(demo(15), {0: (None, None), 15: (0.0, 0.0)})),
    ("the evaluation is of before the reward rose", lambda: alarms(demo(30), {0: (None, None), 10: (0.0, 0.0)})),
]


def with_margin_alone(count: int) -> Steps:
    """Groups without a deviation, half of whose rows differ from the reference's."""
    return [(step, metrics | {"teaching_group": 0.0, "teaching": 0.5}) for step, metrics in demo(count)]


@pytest.mark.parametrize(("kind", "judged", "said"), RAISED)
def test_a_run_gone_wrong_raises_that_alarm_with_its_numbers(
    kind: str, judged: Callable[[], list[Alarm]], said: list[str]
) -> None:
    alarm = {alarm.kind: alarm for alarm in judged()}[kind]
    assert all(part in alarm.message + alarm.advice for part in said), alarm
    assert alarm.title
    assert alarm.advice
    assert 0 < alarm.since <= 40


@pytest.mark.parametrize(("what", "judged"), ALMOST, ids=[what for what, _ in ALMOST])
def test_a_run_that_nearly_goes_wrong_raises_none(what: str, judged: Callable[[], list[Alarm]]) -> None:
    assert [alarm.kind for alarm in judged()] == []


def test_every_kind_is_tried() -> None:
    assert {kind for kind, _, _ in RAISED} == set(KINDS)


def test_a_healthy_run_raises_no_alarm_after_any_step() -> None:
    steps = demo(60)
    for count in range(1, len(steps) + 1):
        done = {step: gain for step, gain in DEMO_EVALUATIONS.items() if step <= count}
        assert alarms(steps[:count], done) == []


def test_the_first_steps_raise_nothing_however_bad() -> None:
    bad = demo(
        12, truncated=1.0, teaching=0.0, reward=0.0, entropy=0.0, grad_norm=80.0, update_norm=0.0, unscorable=64.0
    )
    assert alarms(bad) == []
    assert alarms(demo(3), facts=replace(ROOM, memory_used=8100.0)) == []


def test_the_worst_comes_first() -> None:
    found = alarms(demo(40, truncated=0.9, reward=0.0, margin_high_share=1.0, margin_low_share=0.0))
    assert [alarm.severity for alarm in found] == ["critical", "warning", "note"]


def judged_in_turn(steps: Steps, from_step: int = 1) -> list[list[Alarm]]:
    """The alarms after each step from ``from_step`` on."""
    found: list[list[Alarm]] = []
    for count in range(from_step, len(steps) + 1):
        found.append(alarms(steps[:count], before=found[-1] if found else []))
    return found


def test_a_value_that_wavers_about_the_threshold_raises_one_alarm_that_stays_as_it_began() -> None:
    wavering = [0.55, 0.47] * 20
    series = judged_in_turn(demo(60, truncated=wavering), 20)
    raised = [found for found in series if found]
    assert raised
    assert series[-len(raised) :] == [raised[0]] * len(raised)


def test_an_alarm_ends_where_the_value_is_healthy_again() -> None:
    series = judged_in_turn(demo(60, truncated=[0.9] * 20 + [0.1] * 20), 20)
    kinds = [[alarm.kind for alarm in found] for found in series]
    assert ["truncation"] in kinds
    assert kinds[-1] == []
    changes = sum(one != other for one, other in pairwise(kinds))
    assert changes == 2


def test_another_fault_of_the_same_kind_is_another_alarm() -> None:
    tiny = alarms(demo(30, grad_norm=[1e-5] * 10))
    large = alarms(demo(40, grad_norm=[5.0] * 10), before=tiny)
    assert (tiny[0].title, large[0].title) == ("the gradient is tiny", "the gradient is large")
    assert large[0].since == 31


def test_what_cannot_be_judged_yet_goes_on_standing() -> None:
    stood = alarms(demo(30, truncated=0.9))
    assert stood
    assert alarms(demo(4), before=stood) == stood
    assert alarms([], before=stood) == stood


def test_metrics_that_a_run_does_not_have_raise_nothing() -> None:
    assert alarms([(step, {}) for step in range(1, 41)], FLAT) == []


def test_a_run_that_is_solved_is_told_so_and_not_to_take_easier_problems() -> None:
    alarm = alarms(demo(30, teaching=[0.0] * 10, reward=[1.0] * 10))[0]
    assert (alarm.kind, alarm.severity) == ("no_signal", "note")
    assert "solved" in alarm.advice


def test_events_tell_which_alarms_stand() -> None:
    truncation, reward = alarms(demo(40, truncated=0.9, reward=0.0))[::-1]
    assert (truncation.kind, reward.kind) == ("truncation", "no_reward")
    events: list[tuple[str, dict[str, Any]]] = [
        ("started", {}),
        (BEGINS, truncation.as_json()),
        ("checkpoint", {"path": "x"}),
        (BEGINS, reward.as_json()),
        ("resumed", {"from_step": 2}),
    ]
    assert standing(events) == [reward, truncation]
    assert standing([(ENDS, {"kind": "truncation"})], standing(events)) == [reward]
    assert standing([]) == []


def test_an_alarm_of_another_version_is_still_an_alarm() -> None:
    [alarm] = standing([(BEGINS, {"message": "rollout and update disagree"})])
    assert (alarm.message, alarm.severity, alarm.since) == ("rollout and update disagree", "warning", 0)


def test_an_alarm_in_words_says_what_is_wrong_and_what_to_try() -> None:
    [alarm] = alarms(demo(30, truncated=[0.9] * 10))
    begun = event_words(BEGINS, alarm.as_json())
    assert begun.startswith("ALARM: completions are cut off. 90% of the completions of the last 10 steps")
    assert "Try: Raise rollout.max_new_tokens (now 12)" in begun
    over = event_words(ENDS, {"kind": alarm.kind, "title": alarm.title, "since": alarm.since})
    assert over == "alarm over: completions are cut off (since step 21)"
