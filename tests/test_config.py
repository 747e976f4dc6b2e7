from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import (
    ConfigError,
    RunConfig,
    differences,
    field_paths,
    load_yaml,
    nearest_key,
    parse_set,
    resolve,
    value_at,
)

BASE: dict[str, Any] = {
    "model": {"id": "owner/name"},
    "task": {"source": "arithmetic", "options": {"low": 1}},
    "rewards": [{"name": "math"}, {"name": "length", "weight": 0.1}],
}


def with_set(*items: str) -> RunConfig:
    return resolve(BASE, parse_set(items))


def refusal(*items: str) -> str:
    with pytest.raises(ConfigError) as caught:
        with_set(*items)
    return str(caught.value)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (
            "rollout.grop_size=4",
            "rollout.grop_size (from --set): there is no such setting; did you mean rollout.group_size",
        ),
        ("grup_size=4", "grup_size (from --set): there is no such setting; did you mean rollout.group_size?"),
        ("rollot={group_size: 4}", "rollot (from --set): there is no such setting; did you mean rollout?"),
        ("rewards.0.wieght=2", "there is no such setting; did you mean rewards.0.weight?"),
        ("rollout.group_size=1", "rollout.group_size = 1 (from --set): must be greater than or equal to 2"),
        ("rollout.group_size=2.5", "rollout.group_size = 2.5 (from --set): must be a valid integer"),
        ("rollout.group_size=eight", "rollout.group_size = 'eight' (from --set): must be a valid integer"),
        ("rollout.group_size=true", "must be a number, not true or false"),
        ("rollout.group_size=", "rollout.group_size (from --set): must be a valid integer"),
        ("optimizer.learning_rate=-1", "optimizer.learning_rate = -1 (from --set): must be greater than 0"),
        ("optimizer.learning_rate=.nan", "optimizer.learning_rate = nan (from --set): must be a finite number"),
        ("rewards.0.weight=.inf", "rewards.0.weight = inf (from --set): must be a finite number"),
        ("run.steps=0", "run.steps = 0 (from --set): must be greater than or equal to 1"),
        ("run.seed=-1", "run.seed = -1 (from --set): must be greater than or equal to 0"),
        ("algorithm.margin_low=0.5", "margin_low (0.5) must not be above margin_high (0.28)"),
        ("algorithm.name=dpo", "algorithm.name = 'dpo' (from --set): must be 'aapo', 'grpo', 'dr_grpo', "),
        ("algorithm.reference=banked", "algorithm.reference = 'banked' (from --set): must be 'fresh' or 'bank'"),
        ("model.device=gpu", "model.device = 'gpu' (from --set): must be 'auto', 'cuda' or 'cpu'"),
        ("model.quantization=true", "model.quantization = True (from --set): must be 'nf4' or 'none'"),
        ("model.id=", "model.id (from --set): must be a valid string"),
        ("model=owner/name", "model = 'owner/name' (from --set): must be a mapping"),
        ("task.source=gsm8k", "must be arithmetic, countdown, reasoning-gym:NAME, hub:OWNER/DATASET or file:PATH"),
        ("task.options=3", "task.options = 3 (from --set): must be a mapping"),
        ("lora.targets=q_proj", "lora.targets = 'q_proj' (from --set): must be all-linear or a list of layer names"),
        ("lora.targets=[]", "lora.targets = [] (from --set): must be all-linear or a list of layer names"),
        ("rewards=[]", "rewards = [] (from --set): must have at least 1 item"),
        ("rewards=math", "rewards = 'math' (from --set): must be a valid list"),
        ("rewards.2.weight=1", "rewards.2.weight = 1 (from --set): rewards is a list; use a position from 0 to 1"),
        ("optimizer.warmup_steps=101", "optimizer.warmup_steps (101) is more than run.steps (100)"),
    ],
)
def test_a_wrong_setting_is_refused_with_path_value_and_what_is_allowed(item: str, said: str) -> None:
    message = refusal(item)
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("item", "path", "value"),
    [
        ("rollout.group_size=16", "rollout.group_size", 16),
        (" rollout.group_size = 16 ", "rollout.group_size", 16),
        ("rollout.group_size='16'", "rollout.group_size", 16),
        ("optimizer.learning_rate=1e-5", "optimizer.learning_rate", 1e-5),
        ("optimizer.learning_rate=1", "optimizer.learning_rate", 1.0),
        ("rewards.1.weight=0", "rewards.1.weight", 0.0),
        ("rewards.1.weight=-0.5", "rewards.1.weight", -0.5),
        ("algorithm.margin_low=0.28", "algorithm.margin_low", 0.28),
        ("model.revision=1.0", "model.revision", "1.0"),
        ("model.revision=null", "model.revision", None),
        ("task.system_prompt=42", "task.system_prompt", "42"),
        ("task.system_prompt=a=b: c", "task.system_prompt", "a=b: c"),
        ("task.system_prompt=- be brief", "task.system_prompt", "- be brief"),
        ("task.system_prompt=100%", "task.system_prompt", "100%"),
        ("task.options.operations=*", "task.options", {"low": 1, "operations": "*"}),
        ("task.options.high=9", "task.options", {"low": 1, "high": 9}),
        ("task.options={high: 9}", "task.options", {"high": 9}),
        ("lora.targets=[q_proj]", "lora.targets", ["q_proj"]),
        ("task.held_out=0", "task.held_out", 0),
        ("warm_start.template={answer}", "warm_start.template", "{answer}"),
        (
            r"warm_start.template={solution} is \boxed{{{answer}}}.",
            "warm_start.template",
            r"{solution} is \boxed{{{answer}}}.",
        ),
        ("task.options={low: 2}", "task.options", {"low": 2}),
        (
            "model.chat_template_options.enable_thinking=false",
            "model.chat_template_options",
            {"enable_thinking": False},
        ),
    ],
)
def test_settings_that_look_unusual_are_accepted(item: str, path: str, value: Any) -> None:
    found: Any = with_set(item)
    for part in path.split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_all_problems_are_reported_in_the_order_of_the_sections() -> None:
    lines = refusal("run.steps=0", "rollout.group_size=0", "model.device=tpu", "run.stpes=3").splitlines()
    assert [line.split(" ")[0] for line in lines] == ["model.device", "rollout.group_size", "run.steps", "run.stpes"]


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({})
    assert str(caught.value) == "model: is missing\ntask: is missing"
    with pytest.raises(ConfigError, match=r"^task\.source \(from mine\.yaml\): is missing$"):
        resolve({"model": {"id": "a/b"}, "task": {}}, origin="mine.yaml")


def test_an_empty_section_of_a_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^run: must be a mapping$"):
        resolve(BASE | {"run": None})


def test_a_setting_whose_name_is_a_number_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^1: there is no such setting"):
        resolve({**BASE, 1: 2})  # type: ignore[dict-item]


def test_a_problem_says_whether_the_file_or_set_brought_it() -> None:
    data = BASE | {"run": {"steps": 0}}
    with pytest.raises(ConfigError, match=r"run\.steps = 0 \(from mine\.yaml\)"):
        resolve(data, {"run.seed": 3}, origin="mine.yaml")
    with pytest.raises(ConfigError, match=r"run\.steps = -1 \(from --set\)"):
        resolve(data, {"run.steps": -1}, origin="mine.yaml")


def test_resolving_changes_neither_the_preset_nor_the_overrides() -> None:
    data = {"model": {"id": "a/b"}, "task": {"source": "arithmetic"}, "rewards": [{"name": "math"}]}
    resolve(data, {"rewards.0.weight": 2, "task.held_out": 3})
    assert data == {"model": {"id": "a/b"}, "task": {"source": "arithmetic"}, "rewards": [{"name": "math"}]}


def test_the_default_reward_can_be_changed_by_position() -> None:
    config = resolve({"model": {"id": "a/b"}, "task": {"source": "arithmetic"}}, {"rewards.0.weight": 2})
    assert [(reward.name, reward.weight) for reward in config.rewards] == [("math", 2.0)]


@pytest.mark.parametrize("item", ["rollout.group_size", "=3", " = 3", "model.id={", "model.id='a"])
def test_set_without_a_path_a_sign_or_a_yaml_value_is_refused(item: str) -> None:
    with pytest.raises(ConfigError):
        parse_set([item])


def test_a_configuration_survives_json() -> None:
    config = with_set("task.options={operations: ['+', '-']}", "optimizer.learning_rate=3e-7", "model.revision=1.0")
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        with_set().run.steps = 3  # type: ignore[misc]


def test_every_path_has_a_value_and_a_description() -> None:
    config = with_set()
    paths = list(field_paths())
    assert {"model.id", "lora.r", "rollout.group_size", "rewards", "run.seed", "evaluation.every"} <= set(paths)
    for path in paths:
        value_at(config, path)
        section, _, leaf = path.rpartition(".")
        owner = type(value_at(config, section)) if section else RunConfig
        assert owner.model_fields[leaf].description, path


def test_differences_name_the_paths_that_differ_with_both_values() -> None:
    changed = with_set("rollout.group_size=16", "task.options.low=2")
    assert differences(with_set(), changed) == {
        "rollout.group_size": (8, 16),
        "task.options": ({"low": 1}, {"low": 2}),
    }
    assert differences(changed, changed) == {}


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [("run.step", "run.steps"), ("learning_rte", "optimizer.learning_rate"), ("evaluate", "evaluation"), ("xyz", None)],
)
def test_the_nearest_known_key_is_found(unknown: str, nearest: str | None) -> None:
    assert nearest_key(unknown) == nearest


def test_an_evaluation_asks_no_more_problems_than_are_held_out() -> None:
    assert with_set("task.held_out=7").evaluated_problems == 7
    assert with_set("evaluation.problems=5").evaluated_problems == 5


def test_answers_in_an_evaluation_are_as_long_as_in_the_rollout_unless_told_otherwise() -> None:
    assert with_set("rollout.max_new_tokens=33").evaluation_tokens == 33
    assert with_set("evaluation.max_new_tokens=44").evaluation_tokens == 44


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"model: {id: a\n", "is not valid YAML (line 2)"),
        (b"", "must be a mapping"),
        (b"- model\n", "must be a mapping"),
        (b"model: \xff\n", "is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_by_name(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_yaml(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_yaml(tmp_path)


PAPER = {"name": "aapo", "scale_rewards": False, "aggregation": "groups", "margin_low": -0.5, "reference": "bank"}


@pytest.mark.parametrize(
    ("section", "items", "expected"),
    [
        (PAPER, ["algorithm.name=gpg"], {"name": "gpg", "scale_rewards": False, "aggregation": "tokens"}),
        (PAPER, ["algorithm.name=grpo"], {"scale_rewards": False, "margin_low": -0.2, "reference": "fresh"}),
        (PAPER, ["algorithm.name=rloo"], {"scale_rewards": False, "reference": "fresh"}),
        (PAPER, ["algorithm.name=aapo"], PAPER),
        ({}, ["algorithm.name=gpg"], {"scale_rewards": False}),
        ({"scale_rewards": True}, ["algorithm.name=gpg"], {"scale_rewards": False}),  # only what was AAPO's anyway
        ({}, ["algorithm.name=gpg", "algorithm.scale_rewards=true"], {"scale_rewards": True}),
        ({}, ["algorithm.name=apa"], {"scale_rewards": True}),
        (
            {"name": "grpo", "options": {"beta": 0.1}, "updates_per_rollout": 2},
            ["algorithm.name=dapo", "algorithm.options.epsilon_high=0.3"],
            {"options": {"epsilon_high": 0.3}, "updates_per_rollout": 2},
        ),
        ({"name": "grpo", "updates_per_rollout": 2}, ["algorithm.name=aapo"], {"updates_per_rollout": 1}),
        ({"name": "grpo", "updates_per_rollout": 2}, ["algorithm.name=rloo"], {"updates_per_rollout": 1}),
        (
            {"name": "grpo", "updates_per_rollout": 2},
            ["algorithm.name=rloo", "algorithm.options={variant: ppo_seq}"],
            {"updates_per_rollout": 2},
        ),
    ],
)
def test_another_algorithm_leaves_out_what_only_the_presets_has(
    section: dict[str, Any], items: list[str], expected: dict[str, Any]
) -> None:
    base = {"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}, "algorithm": section}
    for data in (base, resolve(base).model_dump()):  # from a file, and from a form that has every value
        found = resolve(data, parse_set(items)).algorithm.model_dump()
        assert {key: found[key] for key in expected} == expected


def test_a_run_of_an_older_version_is_read_whatever_its_settings_mean_today() -> None:
    section = {"name": "grpo", "aggregation": "groups", "margin_low": -0.5}
    old = {"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}, "algorithm": section}
    assert RunConfig.model_validate(old).algorithm.aggregation == "groups"
    with pytest.raises(ConfigError):
        resolve(old)
