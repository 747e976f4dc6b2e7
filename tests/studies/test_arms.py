"""The settings that are held equal between arms."""

from __future__ import annotations

from typing import Any

import pytest

from aapo_desk.config import RunConfig, resolve
from aapo_desk.studies.arms import (
    ALGORITHM,
    Arm,
    Budget,
    BudgetKind,
    completions,
    make_budget,
    run_config,
    steps_within,
)

SETTINGS = {
    "model": {"id": "owner/model"},
    "task": {"source": "arithmetic"},
    "rollout": {"prompts_per_step": 2, "group_size": 4},
    "optimizer": {"schedule": "cosine"},
    "run": {"steps": 6, "seed": 5},
}


def arm(name: str, **more: Any) -> Arm:
    return Arm(name, resolve(SETTINGS, {ALGORITHM: name, **{f"algorithm.{key}": value for key, value in more.items()}}))


def plan(kind: BudgetKind, amount: float | None, *arms: Arm) -> list[RunConfig]:
    budget = make_budget(kind, amount, arms)
    return [run_config(arms, one, 5, budget) for one in arms]


def test_steps_are_the_presets_or_those_that_were_asked_for() -> None:
    assert [one.run.steps for one in plan("steps", None, arm("aapo"), arm("grpo"))] == [6, 6]
    assert [one.run.steps for one in plan("steps", 3, arm("aapo"), arm("grpo"))] == [3, 3]


def test_an_arm_with_a_fresh_reference_gets_half_as_many_steps_for_the_same_completions() -> None:
    aapo, grpo, gpg = plan("completions", None, arm("aapo"), arm("grpo"), arm("gpg"))
    assert [one.run.steps for one in (aapo, grpo, gpg)] == [6, 12, 12]
    assert [one.optimizer.schedule for one in (aapo, grpo, gpg)] == ["cosine"] * 3
    assert [one.run.completions for one in (aapo, grpo, gpg)] == [None] * 3
    assert [one.run.steps for one in plan("completions", 100, arm("aapo"), arm("grpo"))] == [6, 12]


def test_refills_count_as_they_come_and_then_all_rates_are_constant() -> None:
    dapo = arm("dapo", options={"max_refills": 2})
    aapo, refilling = plan("completions", 96, arm("aapo"), dapo)
    assert (aapo.run.steps, aapo.run.completions) == (6, None)
    assert (refilling.run.steps, refilling.run.completions) == (12, 96)
    assert (aapo.optimizer.schedule, refilling.optimizer.schedule) == ("constant", "constant")


def test_seconds_end_a_run_that_is_planned_longer() -> None:
    aapo, grpo = plan("seconds", 90, arm("aapo"), arm("grpo"))
    assert (aapo.run.seconds, grpo.run.seconds) == (90, 90)
    assert aapo.run.steps == grpo.run.steps > 10_000
    assert aapo.optimizer.schedule == "constant"


def test_without_an_amount_of_seconds_the_first_run_takes_the_presets_steps() -> None:
    aapo, _ = plan("seconds", None, arm("aapo"), arm("grpo"))
    assert (aapo.run.steps, aapo.run.seconds, aapo.optimizer.schedule) == (6, None, "constant")


@pytest.mark.parametrize("problems", [1, 3, 7, 100])
def test_a_banked_reference_costs_a_group_for_each_different_problem(problems: int) -> None:
    config = arm("aapo", reference="bank").config
    assert completions(config, 3, problems) == (3 * 2 + min(6, problems)) * 4
    for amount in range(16, 400, 7):
        steps = steps_within(config, Budget("completions", amount, problems))
        assert completions(config, steps, problems) <= amount < completions(config, steps + 1, problems)


def test_arms_of_a_seed_differ_in_nothing_else() -> None:
    aapo, grpo = plan("steps", None, arm("aapo"), arm("grpo"))
    same = {"algorithm": None}
    assert aapo.model_copy(update=same) == grpo.model_copy(update=same)
    assert aapo.run.seed == 5
