"""The dtype that a model computes in on cards old and new, and which models float16 does not carry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from aapo_desk.config import ConfigError, ModelConfig
from aapo_desk.models import sources
from aapo_desk.models.loading import check_dtype, choose_dtype, load_base
from aapo_desk.models.precision import overflowing
from tests.policies import load_tiny

GPU = torch.device("cuda")
GEMMA = transformers.Gemma3TextConfig()


def has_capability(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    """A card of this compute capability, for which torch, as it does, says that it has bfloat16."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((6, 1), torch.float16),
        ((7, 5), torch.float16),
        ((8, 0), torch.bfloat16),
        ((8, 6), torch.bfloat16),
        ((12, 0), torch.bfloat16),
    ],
)
def test_auto_follows_the_compute_capability(
    capability: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_capability(monkeypatch, capability)
    assert choose_dtype("auto", GPU) == dtype
    assert choose_dtype("float32", GPU) == torch.float32


@pytest.mark.parametrize(
    ("config", "family"),
    [
        (transformers.Gemma3TextConfig(), "Gemma 3"),
        (transformers.Gemma3Config(), "Gemma 3"),
        (transformers.Qwen3_5TextConfig(), "Qwen3.5"),
        (transformers.Qwen3_5Config(), "Qwen3.5"),
        (transformers.Qwen3Config(), None),
        (transformers.LlamaConfig(), None),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_the_families_that_overflow_are_known_with_and_without_their_eyes(config: Any, family: str | None) -> None:
    assert overflowing(config) == family


def refused(capability: tuple[int, int], dtype: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    has_capability(monkeypatch, capability)
    with pytest.raises(ConfigError) as caught:
        check_dtype(ModelConfig(id="google/gemma-3-1b-it", compute_dtype=dtype), GEMMA, GPU)
    return str(caught.value)


def test_an_old_card_refuses_gemma_by_name_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused((7, 5), "auto", monkeypatch)
    assert said.startswith("model.compute_dtype = 'auto': this GPU (compute capability 7.5) has no bfloat16")
    assert "Gemma 3 cannot be computed in float16" in said
    assert "model.compute_dtype=float32" in said
    assert "model.compute_dtype=float32" in refused((7, 5), "float16", monkeypatch)


def test_a_new_card_refuses_it_only_where_float16_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused((8, 9), "float16", monkeypatch)
    assert "set model.compute_dtype=auto" in said
    assert "this GPU" not in said
    for dtype in ("auto", "bfloat16", "float32"):
        check_dtype(ModelConfig(id="google/gemma-3-1b-it", compute_dtype=dtype), GEMMA, GPU)


def test_nothing_of_the_weights_is_read_before_the_refusal(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gemma"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "gemma3_text"}
    del config["rope_parameters"]  # a Llama's, which Gemma 3 in transformers 5.17 does not read
    (folder / "config.json").write_text(json.dumps(config))
    model = ModelConfig(id=str(folder), device="cpu", quantization="none", compute_dtype="float16")
    with pytest.raises(ConfigError, match=r"model\.compute_dtype = 'float16': Gemma 3 cannot be computed in float16"):
        load_base(model, sources.resolve(model), torch.device("cpu"), torch.float16)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_the_adapter_is_float32_where_the_base_computes_in_float16(tiny_model: Path, quantization: Any) -> None:
    policy = load_tiny(tiny_model, "float16", quantization)
    assert {value.dtype for value in policy.adapter_parameters().values()} == {torch.float32}
    assert policy.causal.dtype == torch.float16
