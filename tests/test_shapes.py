"""The models that are known without a download: their configurations, and the counts that follow from them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import ModelConfig
from aapo_desk.fit import shape_of
from aapo_desk.memory import ModelShape, known_config

COMMIT = "a" * 40
FACTS = Path(
    os.environ.get("AAPO_DESK_MODEL_FACTS") or Path(__file__).parents[2] / "shared" / "models" / "models.jsonl"
)


def facts() -> list[dict[str, Any]]:
    """Published shapes and counts, a model a line."""
    return [json.loads(line) for line in FACTS.read_text().splitlines()] if FACTS.is_file() else []


def shape(model_id: str) -> ModelShape:
    config = known_config(model_id)
    assert config is not None
    return ModelShape.from_config(config)


@pytest.mark.parametrize(
    ("model_id", "parameters", "lora_per_rank"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008, 305_280),
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512, 40_370_176 // 16),
        ("Qwen/Qwen3-4B", 4_022_468_096, 2_064_384),
        ("Qwen/Qwen3-8B", 8_190_735_360, 87_293_952 // 32),
        ("Qwen/Qwen3.5-0.8B", 752_393_024, 676_416),
        ("meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824, 1_519_616),
        ("google/gemma-3-1b-it", 999_885_952, 815_360),
        ("microsoft/Phi-4-mini-instruct", 3_836_021_760, 1_441_792),
        ("ibm-granite/granite-4.0-350m", 352_379_904, 415_744),
        ("LiquidAI/LFM2-1.2B", 1_170_340_608, 694_272),
    ],
)
def test_counts_are_the_published_ones(model_id: str, parameters: int, lora_per_rank: int) -> None:
    found = shape(model_id)
    assert (found.linear + found.other, found.lora_per_rank) == (parameters, lora_per_rank)


@pytest.mark.skipif(not facts(), reason="the facts on models are not beside this checkout (AAPO_DESK_MODEL_FACTS)")
def test_all_that_is_known_agrees_with_the_facts_on_models() -> None:
    known = [(row, config) for row in facts() if (config := known_config(row["hub_id"])) is not None]
    assert len(known) >= 30
    for row, config in known:
        text = ModelShape.from_config(config.get("text_config") or config)
        others = row["embedding_params"] + row["lm_head_params"] + row["norm_bias_conv_params"]
        found = (text.linear, text.other, text.lora_per_rank, text.fixed_state, set(text.targets))
        counted = (row["linear_params_quantisable"], others, row["lora_params_per_rank_all_linear"])
        wanted = (*counted, row["fixed_state_bytes_per_sequence"], set(row["linear_leaf_names"]))
        assert found == wanted, row["hub_id"]
        caches = (text.full_layers, text.sliding_layers, text.window)
        assert caches == (row["kv_layers_full"], row["kv_layers_sliding"], row["sliding_window"] or 0), row["hub_id"]
        assert row["max_position"] == (config.get("text_config") or config)["max_position_embeddings"], row["hub_id"]


def test_a_vision_tower_that_is_loaded_too_counts() -> None:
    found = shape("google/gemma-3-4b-it")
    text = ModelShape.from_config(known_config("google/gemma-3-4b-it")["text_config"])  # type: ignore[index]
    assert found.linear == text.linear
    assert found.lora_per_rank == text.lora_per_rank
    assert found.frozen + found.other - text.other == pytest.approx(0.42e9, rel=0.01)


@pytest.mark.parametrize(
    ("twin", "model_id"),
    [
        ("Qwen/Qwen3-4B-Base", "Qwen/Qwen3-4B"),
        ("Qwen/Qwen2.5-Math-1.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct"),
        ("google/gemma-3-270m", "google/gemma-3-270m-it"),
        ("unsloth/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-1B-Instruct"),
    ],
)
def test_twins_and_copies_have_the_shape_of_their_model(twin: str, model_id: str) -> None:
    assert shape(twin) == shape(model_id)


def test_a_model_that_was_never_fetched_has_a_shape(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert shape_of(ModelConfig(id="Qwen/Qwen3-4B")) == shape("Qwen/Qwen3-4B")


def test_the_models_own_configuration_has_the_last_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--Qwen--Qwen3-4B"
    (model / "snapshots" / COMMIT).mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    own = {**(known_config("Qwen/Qwen3-4B") or {}), "num_hidden_layers": 5}
    (model / "snapshots" / COMMIT / "config.json").write_text(json.dumps(own))
    assert shape_of(ModelConfig(id="Qwen/Qwen3-4B")).layers == 5


def test_of_other_models_nothing_is_known() -> None:
    assert known_config("nobody/Qwen3-4B") is None
    assert known_config("Qwen/Qwen3-4B-GGUF") is None


GEMMA = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 12, "model_type": "gemma3_text"}


def test_what_gemmas_files_leave_out_is_as_transformers_has_it() -> None:
    found = ModelShape.from_config(GEMMA | {"sliding_window": 8})
    assert (found.heads, found.kv_heads, found.head_dim, found.vocab) == (8, 4, 256, 262208)
    assert (found.full_layers, found.sliding_layers, found.window) == (2, 10, 8)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (GEMMA, "lacks sliding_window"),
        ({"model_type": "granitemoehybrid", "hidden_size": 8, "num_attention_heads": 2, "vocab_size": 9}, "experts"),
        ((known_config("LiquidAI/LFM2-1.2B") or {}) | {"full_attn_idxs": None}, "lacks layer_types"),
        ((known_config("Qwen/Qwen3-4B") or {}) | {"layer_types": ["mamba"]}, "layers of type 'mamba'"),
        ((known_config("Qwen/Qwen3-4B") or {}) | {"layer_types": ["linear_attention"]}, "recurrent layers"),
        ({"model_type": "gemma3", "text_config": GEMMA | {"sliding_window": 8}, "vision_config": {}}, "vision tower's"),
    ],
)
def test_what_cannot_be_counted_is_said(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelShape.from_config(config)
