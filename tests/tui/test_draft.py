from __future__ import annotations

from typing import Any

import pytest

from aapo_desk.config import ConfigError, Problem, RunConfig, parse_set, resolve
from aapo_desk.tui.draft import Checked, Draft

BASE: dict[str, Any] = {
    "model": {"id": "owner/name"},
    "task": {"source": "arithmetic", "options": {"low": 1}},
    "rewards": [{"name": "math"}, {"name": "length", "weight": 0.1}],
}


@pytest.fixture
def base() -> RunConfig:
    return resolve(BASE)


def checked(base: RunConfig, **edits: str) -> Checked:
    draft = Draft(base)
    for key, text in edits.items():
        draft.edit(key.replace("__", "."), text)
    return draft.check()


def test_an_untouched_draft_is_its_preset(base: RunConfig) -> None:
    assert checked(base) == Checked(base, {}, {})


def test_edits_are_laid_over_the_preset_and_listed_with_both_values(base: RunConfig) -> None:
    found = checked(base, rollout__group_size="16", task__options="low: 2", algorithm__name="grpo")
    assert found.config == resolve(
        BASE, parse_set(["rollout.group_size=16", "task.options.low=2", "algorithm.name=grpo"])
    )
    assert found.changes == {
        "task.options": ("low: 1", "low: 2"),
        "algorithm.name": ("aapo", "grpo"),
        "rollout.group_size": ("8", "16"),
    }


def test_the_same_value_written_otherwise_is_no_change(base: RunConfig) -> None:
    assert (
        checked(base, optimizer__learning_rate="0.00001", task__options="{low: 1}", rollout__group_size=" 8").changes
        == {}
    )


def test_a_text_put_back_is_no_edit(base: RunConfig) -> None:
    draft = Draft(base)
    draft.edit("run.steps", "x")
    draft.edit("run.steps", draft.preset_text("run.steps"))
    assert draft.check() == Checked(base, {}, {})


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("rollout.group_size", "1"),
        ("rollout.group_size", "eight"),
        ("rollout.group_size", ""),
        ("optimizer.learning_rate", "-1"),
        ("task.source", "gsm8k"),
        ("lora.targets", "q_proj"),
        ("rewards", "[]"),
        ("task.options", "3"),
    ],
)
def test_a_wrong_value_has_the_message_of_set_beside_its_field(base: RunConfig, path: str, text: str) -> None:
    found = checked(base, **{path: text})
    with pytest.raises(ConfigError) as caught:
        resolve(BASE, parse_set([f"{path}={text}"]))
    assert found.config is None
    assert found.errors == {path: caught.value.problems[0].message}
    assert list(found.changes) == [path]


def test_a_problem_inside_a_list_stands_beside_it_with_the_rest_of_its_path(base: RunConfig) -> None:
    found = checked(base, rewards="- {name: math, wieght: 2}")
    assert found.errors == {"rewards": "0.wieght: there is no such setting; did you mean rewards.0.weight?"}


def test_values_that_cannot_work_together_are_refused_at_each_of_them(base: RunConfig) -> None:
    assert set(checked(base, algorithm__margin_low="0.5").errors) == {"algorithm.margin_low", "algorithm.margin_high"}
    assert set(checked(base, optimizer__warmup_steps="101").errors) == {"optimizer.warmup_steps", "run.steps"}


def test_a_problem_that_names_no_field_stands_at_its_section(base: RunConfig) -> None:
    found = checked(base, algorithm__options="{beta: 1}")
    assert found.errors == {"algorithm": "aapo has no option 'beta'; available: none"}


def test_every_mistake_is_named_at_once(base: RunConfig) -> None:
    found = checked(base, run__steps="0", task__options="{", model__device="tpu")
    assert set(found.errors) == {"run.steps", "task.options", "model.device"}


def test_what_others_find_is_placed_by_its_path(base: RunConfig) -> None:
    problems = [Problem("rewards.0.name", "there is no such reward"), Problem("RUN", "is elsewhere")]
    assert Draft(base).place(problems) == {"rewards": "0.name: there is no such reward", "RUN": "is elsewhere"}
