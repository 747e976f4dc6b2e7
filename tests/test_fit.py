"""Whether a run fits: what is known of a model without fetching it, which memory counts, the verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import ModelConfig, RunConfig, resolve
from aapo_desk.fit import Room, judge, room, shape_of
from aapo_desk.hardware import Gpu, Machine
from aapo_desk.memory import ModelShape
from tests.shapes import RTX_4060, SMOLLM2_135M

GIB = 1 << 30


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
    write(model / "snapshots" / "abc", SMOLLM2_135M)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("abc")
    assert shape_of(ModelConfig(id="owner/name")) == ModelShape.from_config(SMOLLM2_135M)


@pytest.mark.parametrize("model_id", ["nobody/nothing-of-this-name", "pip:wrong", "no such: id", "./nowhere"])
def test_of_a_model_that_is_not_here_nothing_is_known(model_id: str) -> None:
    with pytest.raises(ValueError, match="not known until it has been fetched"):
        shape_of(ModelConfig(id=model_id))


@pytest.mark.parametrize(
    ("data", "said"), [([], "is not a model's configuration"), (SMOLLM2_135M | {"model_type": "x"}, "x")]
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
