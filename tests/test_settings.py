"""The settings as a form shows them: one walk over the schema, and texts that mean what --set means."""

from __future__ import annotations

from typing import Any

import pytest

from aapo_desk import presets
from aapo_desk.config import ConfigError, Setting, field_paths, resolve, settings, value_at

ALL = {setting.path: setting for setting in settings()}


def test_every_field_of_the_schema_is_a_setting_in_order_with_its_help() -> None:
    assert list(ALL) == list(field_paths())
    assert all(setting.help for setting in ALL.values())


@pytest.mark.parametrize(
    ("path", "kind", "bounds", "default"),
    [
        ("model.id", "text", "", None),
        ("model.revision", "text", "", ""),
        ("model.quantization", "choice", "", "nf4"),
        ("model.trust_remote_code", "choice", "", "no"),
        ("lora.r", "integer", "at least 1, at most 1024", "16"),
        ("lora.dropout", "number", "at least 0, below 1", "0.0"),
        ("lora.targets", "yaml", "", "all-linear"),
        ("rewards", "yaml", "", "- name: math\n  weight: 1.0"),
        ("rollout.group_size", "integer", "at least 2", "8"),
        ("optimizer.learning_rate", "number", "above 0", "1e-05"),
        ("evaluation.max_new_tokens", "integer", "at least 1", ""),
    ],
)
def test_a_setting_has_what_its_field_says(path: str, kind: str, bounds: str, default: str | None) -> None:
    setting = ALL[path]
    assert (setting.kind, setting.bounds, setting.default) == (kind, bounds, default)


def test_what_may_be_none_may_be_left_empty() -> None:
    optional = {path for path, setting in ALL.items() if setting.optional}
    assert optional == {
        "model.revision",
        "lora.start_from",
        "task.split",
        "task.problem_column",
        "task.answer_column",
        "task.solution_column",
        "task.system_prompt",
        "task.revision",
        "task.max_answer_characters",
        "warm_start.template",
        "run.seconds",
        "run.completions",
        "evaluation.max_new_tokens",
    }
    assert all(ALL[path].read("") is None for path in optional)


def test_choices_are_those_of_the_schema() -> None:
    assert ALL["model.device"].choices == ("auto", "cuda", "cpu")
    assert ALL["algorithm.scale_rewards"].choices == (True, False)
    assert ALL["algorithm.scale_rewards"].read("no") is False


@pytest.mark.parametrize("name", [preset.name for preset in presets.list_presets() if not preset.own])
def test_every_value_of_the_presets_survives_being_shown_and_read(name: str) -> None:
    config = presets.load(name)
    texts = {path: setting.read(setting.show(value_at(config, path))) for path, setting in ALL.items()}
    assert resolve({}, texts) == config


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("task.system_prompt", "two\nlines"),
        ("task.system_prompt", '"quoted"'),
        ("task.system_prompt", "a: b # [c]"),
        ("task.options", {"template": "{a} {op} {b} =", "nested": {"list": [1, None, "x: y"]}}),
        ("lora.targets", ["q_proj", "v_proj"]),
    ],
)
def test_unusual_values_survive_it_too(path: str, value: Any) -> None:
    setting: Setting = ALL[path]
    assert setting.read(setting.show(value)) == value


@pytest.mark.parametrize("text", ["{a: 1}", '{"a": 1}', "a: 1"])
def test_a_mapping_may_be_written_as_yaml_or_as_json(text: str) -> None:
    assert ALL["task.options"].read(text) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [("{a: 1", "is not valid YAML: expected"), ("a: 1\n b: [", "is not valid YAML (line 2)"), ("2024-13-45", "YAML")],
)
def test_what_is_no_yaml_is_refused_with_the_path_and_the_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ALL["task.options"].read(text)
    assert caught.value.problems[0].path == "task.options"
    assert said in caught.value.problems[0].message
