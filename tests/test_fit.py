"""Tests of the memory fit of a run: what is known of a model without fetching it, which memory counts, the verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import ModelConfig, RunConfig, resolve
from aapo_desk.fit import Room, judge, remedies, room, shape_of, spills, terms
from aapo_desk.fit.changes import smaller
from aapo_desk.hardware import Gpu, Machine
from aapo_desk.memory import ModelShape, required
from tests.shapes import QWEN3_1_7B, QWEN3_8B, RTX_4060, SMOLLM2_135M

GIB = 1 << 30
COMMIT = "a" * 40


def machine(*gpus: Gpu) -> Machine:
    return Machine(8, 3.0, 32000, 21000, gpus)


def config(**overrides: Any) -> RunConfig:
    data = {"model": {"id": "owner/name"}, "task": {"source": "arithmetic"}}
    return resolve(data, {key.replace("__", "."): value for key, value in overrides.items()})


def write(folder: Path, data: Any) -> ModelConfig:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(data))
    return ModelConfig(id=str(folder))


def test_the_free_memory_of_the_card_counts_unless_the_run_is_for_the_processor() -> None:
    assert room("auto", machine(RTX_4060)) == Room("cuda", RTX_4060.name, 8188 << 20, 7576 << 20)
    assert room("cuda", machine(RTX_4060)) == room("auto", machine(RTX_4060))
    assert room("cpu", machine(RTX_4060)) == Room("cpu", "this machine", 32000 << 20, 21000 << 20)
    assert room("auto", machine()) == room("cpu", machine())
    assert room("cuda", machine()) is None


def test_a_local_models_shape_is_read_from_its_folder(tmp_path: Path) -> None:
    assert shape_of(write(tmp_path / "model", SMOLLM2_135M)) == ModelShape.from_config(SMOLLM2_135M)


def test_a_head_of_its_own_is_what_a_llamas_file_need_not_say(tmp_path: Path) -> None:
    silent = {key: value for key, value in SMOLLM2_135M.items() if key != "tie_word_embeddings"}
    shape = shape_of(write(tmp_path / "model", silent))
    assert shape == ModelShape.from_config(SMOLLM2_135M | {"tie_word_embeddings": False})


def test_a_hub_models_shape_is_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--owner--name"
    write(model / "snapshots" / COMMIT, SMOLLM2_135M)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    assert shape_of(ModelConfig(id="owner/name")) == ModelShape.from_config(SMOLLM2_135M)


@pytest.mark.parametrize("model_id", ["nobody/nothing-of-this-name", "pip:wrong", "no such: id", "./nowhere"])
def test_of_a_model_that_is_not_here_nothing_is_known(model_id: str) -> None:
    with pytest.raises(ValueError, match="not known until it has been downloaded"):
        shape_of(ModelConfig(id=model_id))


@pytest.mark.parametrize(
    ("data", "said"), [([], "is not a valid model configuration"), (SMOLLM2_135M | {"model_type": "x"}, "x")]
)
def test_a_configuration_that_tells_nothing_is_refused(tmp_path: Path, data: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        shape_of(write(tmp_path / "model", data))


def test_the_verdict_follows_the_free_memory() -> None:
    shape = ModelShape.from_config(SMOLLM2_135M)
    ample = judge(shape, config(), Room("cuda", "card", 24 * GIB, 24 * GIB))
    assert ample.verdict == "fits"
    assert ample.needed == ample.full > ample.least
    between = (ample.least + ample.full) // 2
    tight = judge(shape, config(), Room("cuda", "card", between, between))
    assert (tight.verdict, tight.needed) == ("tight", tight.least)
    small = judge(shape, config(), Room("cuda", "card", tight.least - 1, tight.least - 1))
    assert (small.verdict, small.needed) == ("too large", small.least)


def test_longer_completions_and_shadow_weights_need_more() -> None:
    shape, space = ModelShape.from_config(SMOLLM2_135M), Room("cuda", "card", 24 * GIB, 24 * GIB)
    plain = judge(shape, config(), space)
    assert judge(shape, config(rollout__max_new_tokens=4096), space).least > plain.least
    assert judge(shape, config(rollout__weights="shadow"), space).least > plain.least


def test_the_terms_at_the_peak_add_up_to_what_is_needed() -> None:
    shape = ModelShape.from_config(QWEN3_1_7B)
    peaks = set()
    for size in (2, 8, 24):
        for longest in (16, 320, 4096):
            for overrides in ({"task__max_prompt_tokens": longest}, {"rollout__max_new_tokens": longest}):
                found = judge(shape, config(**overrides), Room("cuda", "card", size * GIB, size * GIB))
                there = [term for term in terms(found) if term.at_peak]
                assert sum(term.bytes for term in there) == required(found.estimate.peak, "cuda") == found.needed
                assert {term.phase for term in there} == {"always", found.peak_phase}
                peaks.add(found.peak_phase)
    assert peaks == {"rollout", "update"}


def test_on_wsl_the_driver_spills(tmp_path: Path) -> None:
    kernel = tmp_path / "version"
    assert not spills(kernel)
    kernel.write_text("Linux version 6.8.0-45-generic (buildd@lcy02) (gcc 13.2.0)")
    assert not spills(kernel)
    kernel.write_text("Linux version 5.15.153.1-microsoft-standard-WSL2 (root@941d701f84f1)")
    assert spills(kernel)


CHANGES: dict[str, tuple[dict[str, Any], float, dict[str, Any], list[list[str]]]] = {
    "forced shadow weights": (QWEN3_1_7B, 4.5, {"rollout__weights": "shadow"}, [["rollout.weights"]]),
    "long completions": (
        QWEN3_1_7B,
        4.5,
        {"rollout__max_new_tokens": 8192, "task__max_prompt_tokens": 512},
        [["rollout.max_new_tokens"]],
    ),
    "long prompts and completions": (
        QWEN3_1_7B,
        4.5,
        {"rollout__max_new_tokens": 3584, "task__max_prompt_tokens": 3584},
        [["task.max_prompt_tokens"], ["rollout.max_new_tokens"]],
    ),
    "a large adapter": (QWEN3_1_7B, 5.0, {"lora__r": 256, "lora__alpha": 512}, [["lora.r", "lora.alpha"]]),
    "16 bits": (QWEN3_8B, 16, {"model__quantization": "none"}, [["model.quantization"]]),
    "32 bits on a GPU": (
        QWEN3_1_7B,
        6,
        {"model__quantization": "none", "model__compute_dtype": "float32"},
        [["model.compute_dtype"]],
    ),
}


@pytest.mark.parametrize(("model", "gib", "overrides", "paths"), CHANGES.values(), ids=CHANGES)
def test_a_change_that_is_named_makes_it_fit_and_a_smaller_one_would_not(
    model: dict[str, Any], gib: float, overrides: dict[str, Any], paths: list[list[str]]
) -> None:
    shape, space = ModelShape.from_config(model), Room("cuda", "card", int(gib * GIB), int(gib * GIB))
    asked = config(**overrides)
    assert judge(shape, asked, space).verdict == "too large"
    found = remedies(shape, asked, space)
    named = [list(change.values) for change in found]
    assert [path for path in named if path in paths] == paths
    for change in found:
        changed = resolve(asked.model_dump(mode="json"), change.values)
        assert judge(shape, changed, space) == change.fit
        assert change.fit.verdict in ("fits", "tight")
        for path, step in (("rollout.max_new_tokens", 16), ("task.max_prompt_tokens", 16), ("lora.r", 4)):
            if path in change.values:
                less = {**change.values, path: change.values[path] + step}
                assert judge(shape, resolve(asked.model_dump(mode="json"), less), space).verdict == "too large"


def test_the_adapters_scale_stays_when_its_rank_is_lowered() -> None:
    shape, space = ModelShape.from_config(QWEN3_1_7B), Room("cuda", "card", 5 * GIB, 5 * GIB)
    (change,) = (one for one in remedies(shape, config(lora__r=256, lora__alpha=512), space) if "lora.r" in one.values)
    assert change.values["lora.alpha"] == 2 * change.values["lora.r"]


def test_where_no_change_is_enough_alone_several_are_named_together() -> None:
    shape = ModelShape.from_config(QWEN3_1_7B)
    asked = config(rollout__max_new_tokens=8192, model__quantization="none", lora__r=64, lora__alpha=64)
    space = Room("cuda", "card", int(3.1 * GIB), int(3.1 * GIB))
    assert judge(shape, asked, space).verdict == "too large"
    (change,) = remedies(shape, asked, space)
    assert len(change.costs) > 1
    assert "model.quantization" in change.values
    changed = resolve(asked.model_dump(mode="json"), change.values)
    assert judge(shape, changed, space).verdict == "tight"
    for path in change.values:
        rest = {other: value for other, value in change.values.items() if other != path and path != "lora.alpha"}
        if rest and path != "lora.alpha":
            without = resolve(asked.model_dump(mode="json"), rest)
            assert judge(shape, without, space).verdict == "too large", f"{path} was not needed"


def test_where_nothing_helps_nothing_is_named() -> None:
    space = Room("cuda", "card", 2 * GIB, 2 * GIB)
    assert remedies(ModelShape.from_config(QWEN3_8B), config(), space) == []


def test_a_smaller_model_of_the_family_is_the_last_thing_named() -> None:
    space = Room("cuda", "card", 4 * GIB, 4 * GIB)
    large = config(model__id="Qwen/Qwen3-8B")
    found = remedies(shape_of(large.model), large, space)
    assert [change.values for change in found] == [{"model.id": "Qwen/Qwen3-1.7B"}]
    (change,) = found
    assert judge(shape_of(ModelConfig(id="Qwen/Qwen3-1.7B")), large, space) == change.fit


@pytest.mark.parametrize(
    ("model", "known", "found"),
    [
        (
            "Qwen/Qwen2.5-7B-Instruct",
            ["Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-14B", "Qwen/Qwen3-1.7B", "other/Qwen2.5-1.5B"],
            ["Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct"],
        ),
        ("Qwen/Qwen3-4B-Special", ["Qwen/Qwen3-1.7B"], ["Qwen/Qwen3-1.7B"]),
        ("google/gemma-3-1b-it", ["google/gemma-3-270m", "google/gemma-3-4b"], ["google/gemma-3-270m-it"]),
        ("owner/nameless", ["owner/nameless-1B"], []),
    ],
)
def test_a_family_is_told_by_names_that_differ_in_their_size(model: str, known: list[str], found: list[str]) -> None:
    assert smaller(model, known) == found
