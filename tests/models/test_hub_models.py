"""Models from a hub on this machine: which files come, what is refused, and that they load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from aapo_desk.config import ConfigError, LoraConfig, ModelConfig
from aapo_desk.models import sources
from aapo_desk.models.files import settings_files, weight_files
from aapo_desk.models.loading import load_policy
from aapo_desk.models.sources import ModelError, identity, load_tokenizer
from tests.hub_server import COMMIT, GATED_LOG_IN, Hub, folder_files, go_offline_here

MODEL = ModelConfig(id="owner/name", device="cpu", quantization="none")


@pytest.fixture
def hub(served_hub: Hub, tiny_model: Path) -> Hub:
    """The tiny model, with what a repository holds besides."""
    besides = {
        "pytorch_model.bin": b"a pickle",
        "original/consolidated.00.pth": b"a pickle",
        "original/params.json": b"{}",
        "model.Q4_K_M.gguf": b"GGUF",
        "pytorch_model.bin.index.json": b"{}",
        "README.md": b"A model.",
        "modeling_own.py": b"raise SystemExit('it ran')",
    }
    served_hub.add("models/owner/name", folder_files(tiny_model) | besides)
    return served_hub


def names(folder: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*")}


def refusal(**changes: Any) -> str:
    with pytest.raises((ConfigError, ModelError)) as caught:
        sources.resolve(MODEL.model_copy(update=changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_tokenizer_needs_no_weights_and_nobody_needs_a_pickle(hub: Hub) -> None:
    light = sources.resolve(MODEL, weights=False)
    settings = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert settings <= names(light.path) <= settings | {"chat_template.jinja", "special_tokens_map.json"}
    assert load_tokenizer(light).eos_token == "<|im_end|>"

    whole = sources.resolve(MODEL)
    assert names(whole.path) - names(light.path) == set()
    assert names(whole.path) >= settings | {"model.safetensors"}
    fetched = {asked.path.rpartition("/")[2] for asked in hub.contents()}
    assert not {"pytorch_model.bin", "params.json", "modeling_own.py", "README.md"} & fetched


def test_it_loads_and_its_adapter_names_the_hub_and_the_commit(hub: Hub) -> None:
    resolved = sources.resolve(MODEL)
    assert (resolved.name, resolved.revision) == ("owner/name", COMMIT)
    policy = load_policy(MODEL, LoraConfig(r=4, alpha=8), resolved, seed=1)
    settings = policy.model.peft_config["default"]
    assert (settings.base_model_name_or_path, settings.revision) == ("owner/name", COMMIT)


def test_weights_in_several_files_come_as_their_list_says(hub: Hub, tmp_path: Path) -> None:
    files = dict(hub.repos["models/owner/name"].files[COMMIT])
    weights = list(safetensors.torch.load(files.pop("model.safetensors")).items())
    halves = {"model-00001-of-00002.safetensors": weights[:5], "model-00002-of-00002.safetensors": weights[5:]}
    shards = {name: safetensors.torch.save(dict(half)) for name, half in halves.items()}
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    files |= shards | {
        "consolidated.safetensors": b"another format",
        "model.safetensors.index.json": json.dumps(index).encode(),
    }
    hub.add("models/owner/name", files, "d" * 40)
    folder = Path(sources.resolve(MODEL).path)
    assert {path.name for path in folder.glob("*.safetensors")} == set(shards)
    assert all((folder / name).read_bytes() == body for name, body in shards.items())

    del files["model-00002-of-00002.safetensors"]
    hub.add("models/owner/name", files, "e" * 40)
    assert "it has no model-00002-of-00002.safetensors, which its index names" in refusal()


def test_code_comes_only_where_it_is_trusted(hub: Hub) -> None:
    trusted = sources.resolve(MODEL.model_copy(update={"trust_remote_code": True}), weights=False)
    assert "modeling_own.py" in names(trusted.path)


def test_a_pinned_commit_stays_what_it_was_when_the_branch_moves_on(hub: Hub) -> None:
    first = sources.resolve(MODEL)
    files = dict(hub.repos["models/owner/name"].files[COMMIT])
    hub.add("models/owner/name", files | {"config.json": files["config.json"] + b" "}, "d" * 40)
    second = sources.resolve(MODEL)
    assert second.revision == "d" * 40
    assert identity(MODEL, first) != identity(MODEL, second)
    pinned = MODEL.model_copy(update={"revision": COMMIT})
    hub.asked.clear()
    assert sources.resolve(pinned) == first
    assert hub.asked == []


def test_offline_it_comes_from_the_cache_or_says_what_is_missing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    light = sources.resolve(MODEL, weights=False)
    go_offline_here(monkeypatch)
    for weights in (False, True):
        with pytest.raises(ModelError, match=r"is incomplete in the cache .*: model\.safetensors is missing"):
            sources.resolve(MODEL, weights=weights)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    sources.resolve(MODEL)
    go_offline_here(monkeypatch)
    hub.asked.clear()
    assert sources.resolve(MODEL) == light
    assert hub.asked == []
    assert "the model owner/other, revision main, is not in the cache" in refusal(id="owner/other")


def test_a_cache_that_another_tool_has_filled_will_do(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    go_offline_here(monkeypatch)
    cache = tmp_path / "models--owner--name"
    snapshot = cache / "snapshots" / COMMIT
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(COMMIT)
    snapshot.mkdir(parents=True)
    for name, body in folder_files(tiny_model).items():
        (snapshot / name).write_bytes(body)
    assert sources.resolve(MODEL).path == str(snapshot)
    (snapshot / "model.safetensors").unlink()
    assert "the weights of the model owner/name are not in the cache" in refusal()


def without(hub: Hub, *gone: str) -> None:
    files = hub.repos["models/owner/name"].files[COMMIT]
    for name in gone:
        del files[name]


def test_a_repository_without_safetensors_is_refused_by_what_it_holds(hub: Hub) -> None:
    without(hub, "model.safetensors")
    said = refusal()
    assert said.startswith("model.id = 'owner/name': ")
    assert (
        "has no weights as safetensors, only pytorch_model.bin, model.Q4_K_M.gguf; pickles and GGUF files are not"
        in said
    )


def test_a_repository_without_a_configuration_is_no_model(hub: Hub) -> None:
    without(hub, "config.json")
    assert "/owner/name has no config.json, so it is not a model" in refusal()


def test_a_wrong_id_and_a_wrong_revision_name_their_setting(hub: Hub) -> None:
    assert refusal(id="owner/other").startswith("model.id = 'owner/other': there is no such model on the hub")
    assert refusal(revision="v9").startswith(
        "model.revision = 'v9': the model owner/name has no branch, tag or commit v9"
    )


def test_a_gated_model_is_refused_before_the_run_exists(hub: Hub) -> None:
    hub.refusals[None] = GATED_LOG_IN
    with pytest.raises(ModelError, match=r"is gated: open .* create a token"):
        sources.resolve(MODEL, weights=False)


def test_a_disk_too_small_for_the_weights_is_refused_before_the_run_exists(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage: Any = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=300_000_000))
    monkeypatch.setattr("aapo_desk.hub.fetching.SPARE", 299_900_000)
    with pytest.raises(ModelError, match=r"needs \d+ kB more .* has only 300\.0 MB free"):
        sources.resolve(MODEL, weights=False)


def test_a_local_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    assert "the folder has no weights as safetensors, only pytorch_model.bin" in refusal(id=str(tmp_path))


def test_the_files_of_a_model_are_chosen_by_their_names(tmp_path: Path) -> None:
    settings = ["config.json", "tokenizer.model", "merges.txt", "qwen.tiktoken", "additional_chat_templates/tool.jinja"]
    others = ["flax_model.msgpack", "onnx/config.json", "tf_model.h5", "model-1.safetensors", "code/own.py"]
    assert settings_files(settings + others) == settings
    assert settings_files(settings + others, with_code=True) == [*settings, "code/own.py"]
    assert weight_files(["model.safetensors", "model.safetensors.index.json"], tmp_path) == ["model.safetensors"]
    assert weight_files(others, tmp_path) == []
    (tmp_path / "model.safetensors.index.json").write_text('{"weights": 1}')
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json cannot be read"):
        weight_files(["model.safetensors.index.json"], tmp_path)
