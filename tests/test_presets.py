from __future__ import annotations

from pathlib import Path

import pytest

from aapo_desk import presets
from aapo_desk.config import ConfigError
from aapo_desk.rewards import builtin
from aapo_desk.rewards.base import Completion

SHIPPED = sorted(path.stem for path in presets.shipped_folder().glob("*.yaml"))
MINE = """\
# My preset
#
# Needs    patience
#          and time
model: {id: owner/name}
# a comment further down
task: {source: arithmetic}
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own presets folder, empty."""
    monkeypatch.setenv("AAPO_DESK_CONFIG", str(tmp_path / "settings"))
    folder = tmp_path / "settings" / "presets"
    folder.mkdir(parents=True)
    return folder


def refusal(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        presets.find(name)
    return str(caught.value)


def test_the_shipped_presets_are_listed_by_name() -> None:
    assert [preset.name for preset in presets.list_presets()] == SHIPPED
    assert not any(preset.own or preset.error for preset in presets.list_presets())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_preset_is_a_valid_run_and_says_what_it_needs(name: str) -> None:
    config = presets.load(name)
    header = " ".join(presets.find(name).notes)
    for word in ("Model ", "Needs ", "Trains ", "Launch ", "gated"):
        assert word.lower() in header.lower()
    assert any(licence in header for licence in ("Apache-2.0", "MIT", "licence", "License", "terms"))
    assert config.evaluated_problems >= 100
    assert all(reward.weight > 0 for reward in config.rewards)
    if "_paper_" not in name:  # the margin's bounds are absolute
        assert sum(reward.weight for reward in config.rewards) == pytest.approx(1)


@pytest.mark.parametrize(
    "name", [name for name in SHIPPED if name.startswith(("qwen3", "smollm3")) and "2507" not in name]
)
def test_the_thinking_of_models_that_may_think_is_switched_off_explicitly(name: str) -> None:
    assert presets.load(name).model.chat_template_options == {"enable_thinking": False}


def test_thoughts_that_begin_in_the_prompt_need_no_opening_tag() -> None:
    for name in (name for name in SHIPPED if name.startswith("r1-distill")):
        (options,) = (reward.options for reward in presets.load(name).rewards if reward.name == "format")
        score = builtin.built_in("format").build(options)
        texts = ["thought</think>answer", "thought</think>", "thought", "<think>a</think>b</think>c"]
        found = [score(Completion(text, "", "1", 9, 9, False)) for text in texts]
        assert found == [1, 0, 0, 0]


def test_the_papers_settings_are_the_papers() -> None:
    """Source: github.com/JianxXiong/AAPO: open-rs/configs/AAPO.yaml, open-r1/configs/AAPO.yaml, open-r1/train.sh."""
    for name in (name for name in SHIPPED if "_paper_" in name):
        config = presets.load(name)
        r1 = name.startswith("r1")
        assert (config.algorithm.name, config.algorithm.reference) == ("aapo", "fresh")
        assert (config.algorithm.margin_low, config.algorithm.margin_high) == (-0.2, 0.28)
        assert (config.algorithm.aggregation, config.algorithm.scale_rewards) == ("groups", r1)
        assert (config.rollout.group_size, config.rollout.prompts_per_step) == (6, 4 if r1 else 16)
        lengths = (config.task.max_prompt_tokens, config.rollout.max_new_tokens)
        assert lengths == ((512, 3584) if r1 else (1024, 3072))
        assert config.rollout.temperature == (0.7 if r1 else 1.0)
        assert (config.optimizer.learning_rate, config.optimizer.schedule) == (1e-6, "cosine" if r1 else "constant")
        weights = {reward.name: reward.weight for reward in config.rewards}
        assert weights == ({"format": 1, "cosine": 2} if r1 else {"math": 1})


def test_the_demo_and_its_twin_from_the_hub_differ_only_in_where_the_model_comes_from() -> None:
    demo, twin = presets.find("demo").data, presets.find("smollm2-135m_qlora_cpu").data
    assert twin["model"] == demo["model"] | {"id": "HuggingFaceTB/SmolLM2-135M-Instruct"}
    assert {**demo, "model": None} == {**twin, "model": None}


def test_title_and_notes_are_the_comment_lines_at_the_top(own: Path) -> None:
    (own / "mine.yaml").write_text(MINE)
    preset = presets.find("mine")
    assert preset.title == "My preset"
    assert preset.notes == ["Needs    patience", "         and time"]
    assert preset.own


def test_a_preset_without_comments_is_titled_by_its_name(own: Path) -> None:
    (own / "bare.yml").write_text("model: {id: a/b}\ntask: {source: arithmetic}\n")
    assert presets.find("bare").title == "bare"
    assert presets.find("bare").notes == []


def test_a_preset_of_ones_own_hides_a_shipped_one(own: Path) -> None:
    (own / "demo.yaml").write_text(MINE)
    assert presets.load("demo").model.id == "owner/name"
    assert [preset.name for preset in presets.list_presets()] == SHIPPED


def test_overrides_are_laid_over_the_preset() -> None:
    config = presets.load("demo", {"rollout.group_size": 4, "task.options.high": 9})
    assert config.rollout.group_size == 4
    assert config.task.options["high"] == 9
    assert config.task.options["low"] == 1


def test_a_wrong_value_is_refused_with_the_file_it_stands_in(own: Path) -> None:
    (own / "mine.yaml").write_text(MINE + "run: {steps: 0}\n")
    with pytest.raises(ConfigError, match=r"run\.steps = 0 \(from mine\.yaml\): must be greater"):
        presets.load("mine")


def test_a_file_can_be_named_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere.yaml").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / "elsewhere.yaml"), "elsewhere.yaml", "./elsewhere.yaml"):
        assert presets.find(name).title == "My preset"


def test_a_shipped_preset_may_be_named_with_its_suffix() -> None:
    assert presets.find("demo.yaml") == presets.find("demo")


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    assert refusal("dmeo") == (
        "preset = 'dmeo': there is no such preset; to list all presets: aapo-desk presets; did you mean demo?"
    )


def test_a_missing_file_is_refused() -> None:
    assert "the file does not exist" in refusal("nowhere/mine.yaml")
    assert "the file does not exist" in refusal("mine.yaml")


def test_a_broken_preset_of_ones_own_spoils_no_other(own: Path) -> None:
    (own / "broken.yaml").write_text("# Title\nmodel: {id\n")
    (own / "list.yaml").write_text("- 1\n")
    errors = {preset.name: preset.error for preset in presets.list_presets() if preset.error}
    assert set(errors) == {"broken", "list"}
    assert "is not valid YAML (line 3)" in refusal("broken")
    assert "must be a mapping" in refusal("list")
    assert presets.find("demo").error is None


def test_without_a_setting_ones_own_presets_are_in_the_platforms_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AAPO_DESK_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/settings")
    assert presets.own_folder() == Path("/settings/aapo-desk/presets")


def test_a_saved_preset_is_the_same_configuration_and_is_listed_as_ones_own(own: Path) -> None:
    config = presets.load(
        "qwen3-1.7b_qlora_12gb", {"rollout.group_size": 16, "task.system_prompt": "zwölf: 3 # x\nnew"}
    )
    path = presets.save_preset("mine-16.v2", config, ["changed by me"])
    assert path == own / "mine-16.v2.yaml"
    assert presets.load("mine-16.v2") == config
    saved = presets.find("mine-16.v2")
    assert (saved.own, saved.title) == (True, "mine-16.v2")
    assert saved.notes == ["changed by me", "", "Launch   aapo-desk train mine-16.v2"]


def test_a_note_never_becomes_a_setting() -> None:
    presets.save_preset("mine", presets.load("demo"), ["run: {steps: 0}"])
    assert presets.load("mine") == presets.load("demo")


def test_a_saved_preset_holds_what_differs_from_the_defaults_alone() -> None:
    presets.save_preset("mine", presets.load("demo"))
    data = presets.find("mine").data
    assert "optimizer" in data
    assert "max_grad_norm" not in data["optimizer"]
    assert "algorithm" not in data


def test_a_saved_preset_wins_over_a_shipped_one_and_replaces_ones_own(own: Path) -> None:
    presets.save_preset("demo", presets.load("demo", {"run.steps": 7}))
    assert presets.load("demo").run.steps == 7
    presets.save_preset("demo", presets.load("demo", {"run.steps": 8}))
    assert presets.load("demo").run.steps == 8
    assert [path.name for path in own.iterdir()] == ["demo.yaml"]


def test_a_preset_that_ends_otherwise_keeps_its_file(own: Path) -> None:
    (own / "mine.yml").write_text(MINE)
    presets.save_preset("mine", presets.load("demo"))
    assert [path.name for path in own.iterdir()] == ["mine.yml"]
    assert presets.load("mine") == presets.load("demo")


@pytest.mark.parametrize(
    "name", ["", ".hidden", "-x", "a/b", "../a", "a b", "ä", "a\n", "x" * 101, "mine.yaml", "a.yml"]
)
def test_a_name_that_is_none_is_refused_and_nothing_written(own: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="preset"):
        presets.save_preset(name, presets.load("demo"))
    assert list(own.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(own: Path) -> None:
    own.rmdir()
    own.write_text("a file in its place")
    with pytest.raises(ConfigError, match=r"cannot write to .*presets: (File exists|Not a directory)"):
        presets.save_preset("mine", presets.load("demo"))
