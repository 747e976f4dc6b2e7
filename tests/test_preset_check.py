"""The check of presets: all shipped ones are good and fit; what is wrong with others is reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aapo_desk import presets
from aapo_desk.cli.app import run
from aapo_desk.preset_check import check_preset

Output = pytest.CaptureFixture[str]
SHIPPED = sorted(path.stem for path in presets.shipped_folder().glob("*.yaml"))
MINE = """\
# Mine
model: {id: Qwen/Qwen3-0.6B}
task: {source: arithmetic}
"""


@pytest.fixture(autouse=True)
def own(desk_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One's own presets folder; nothing in the hub's cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = presets.own_folder()
    folder.mkdir(parents=True)
    return folder


def problems(folder: Path, name: str, text: str, shipped: bool = False) -> str:
    """Return the problems of a preset of this text."""
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    preset = presets.find(str(path))
    if shipped:
        preset = presets.Preset(preset.name, path, preset.title, preset.notes, preset.data)
    return "\n".join(check_preset(preset).problems)


def test_many_presets_are_shipped() -> None:
    models = {presets.load(name).model.id for name in SHIPPED}
    assert len(models) >= 20
    assert sum(name.endswith("_paper_24gb") for name in SHIPPED) == 3


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_preset_is_good_and_fits_the_memory_of_its_name(name: str) -> None:
    outcome = check_preset(presets.find(name))
    assert outcome.problems == ()
    assert outcome.fit is not None
    assert outcome.fit.verdict in ("fits", "tight")


def test_the_command_has_a_line_each_and_ends_well(capsys: Output) -> None:
    assert run(["presets", "check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(SHIPPED)
    (line,) = (line for line in lines if line.startswith("qwen3-1.7b_qlora_12gb "))
    assert "ok" in line
    assert "fits in 12 GB: " in line


def test_json_is_one_array(capsys: Output, own: Path) -> None:
    (own / "mine.yaml").write_text(MINE)
    (own / "broken.yaml").write_text("model: {id\n")
    assert run(["presets", "check", "mine", "broken", "qwen3-0.6b_qlora_8gb", "--json"]) == 1
    mine, broken, shipped = json.loads(capsys.readouterr().out)
    assert (mine["name"], mine["own"], mine["ok"], mine["verdict"]) == ("mine", True, True, None)
    assert (broken["ok"], broken["problems"]) == (False, [presets.list_presets()[0].error])
    assert (shipped["ok"], shipped["verdict"], shipped["room_bytes"]) == (True, "fits", 8 << 30)
    assert shipped["least_bytes"] < shipped["full_bytes"] < 8 << 30


def test_another_card_is_held_against_on_request(capsys: Output, own: Path) -> None:
    (own / "mine.yaml").write_text(MINE)
    assert run(["presets", "check", "mine", "--vram", "12"]) == 0
    assert "fits in 12 GB" in capsys.readouterr().out
    assert run(["presets", "check", "qwen3-8b_qlora_16gb", "--vram", "4"]) == 1
    assert "GB; such a GPU has 4 GB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--vram", "0"], "'--vram': Input should be greater than or equal to 0.1"),
        (["--vram", "x"], "'--vram': Input should be a valid number"),
        (["nowhere"], "there is no such preset"),
    ],
)
def test_wrong_use_is_refused(arguments: list[str], said: str, capsys: Output) -> None:
    assert run(["presets", "check", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("run: {steps: 0}", "run.steps = 0"),
        ("rewards: [{name: maths}]", "there is no such reward"),
        ("rewards: [{name: format}]", "rewards.0.options.pattern"),
        ("lora: {targets: [qkv_proj, o_proj]}", "the model has no layers qkv_proj; it has down_proj, gate_proj"),
        ("rollout: {max_new_tokens: 41000}", "may have 41512 tokens; the model's context is 40960"),
        ("evaluation: {max_new_tokens: 41000}", "may have 41512 tokens"),
    ],
)
def test_what_is_wrong_with_ones_own_preset_is_said(own: Path, change: str, said: str) -> None:
    assert said in problems(own, "mine", f"{MINE}{change}\n")


def test_ones_own_preset_may_have_any_name_and_header(own: Path) -> None:
    assert problems(own, "llama_qlora_8gb", MINE) == ""


GOOD = """\
# Title
#
# Model    a model, not gated
# Needs    a card
# Trains   an adapter
#
# Launch   aapo-desk train qwen3-0.6b_qlora_8gb
model: {id: Qwen/Qwen3-0.6B, device: cuda}
task: {source: arithmetic}
"""


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("qwen3-0.6b_qlora_8gb", "", "", ""),
        ("qwen3-0.6b_qlora_8gb", "# Needs    a card\n", "", "its header lacks: Needs"),
        ("qwen3-0.6b_qlora_8gb", ", not gated", "", "whether the model is gated"),
        ("qwen3-0.6b_qlora_8gb", "train qwen3-0.6b_qlora_8gb", "train x", "does not end in: Launch"),
        ("qwen3-1.7b_qlora_8gb", "", "", "its name says qwen3-1.7b, its model is Qwen/Qwen3-0.6B"),
        ("qwen3-0.6b_lora_8gb", "", "", "its name says lora, its model.quantization is nf4"),
        ("qwen3-0.6b_qlora_cpu", "", "", "its name says cpu, its model.device is cuda"),
        ("qwen3-0.6b_qlora_1gb", "", "", "such a GPU has 1 GB"),
        (
            "qwen3-0.6b_qlora_3gb",
            "arithmetic}",
            "arithmetic}\nrollout: {max_new_tokens: 4096}",
            "completions at once in 3 GB",
        ),
        ("qwen3", "", "", "its name is not MODEL_METHOD_MEMORY"),
    ],
)
def test_a_shipped_preset_is_held_to_its_name_and_header(own: Path, name: str, old: str, new: str, said: str) -> None:
    found = problems(own, name, GOOD.replace(old, new) if old else GOOD, shipped=True)
    assert said in found
    assert bool(found) == bool(said)


def test_of_an_unknown_model_the_rest_is_checked(own: Path) -> None:
    (own / "mine_qlora_8gb.yaml").write_text(MINE.replace("Qwen/Qwen3-0.6B", "nobody/nothing"))
    outcome = check_preset(presets.find("mine_qlora_8gb"))
    assert (outcome.problems, outcome.fit) == ((), None)
    assert "not known until it has been downloaded" in outcome.note
