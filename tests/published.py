"""Public measurements of what QLoRA GRPO runs of TRL have taken on GPUs, and their settings for our estimate.

A row of the file (JSON lines) has ``model``, ``method``, ``use``, ``gib``, ``metric``, ``settings`` in words and, where
it can be held against an estimate, ``structured``: the settings as columns. Less known models have their ``shape``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aapo_desk.config import ModelConfig
from aapo_desk.fit import shape_of
from aapo_desk.memory import ModelShape, Settings

COLUMNS = ("lora_r", "micro_batch", "prompt_tokens", "completion_tokens")
SHAPE_NAMES = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
}
"""Other names of what a transformers configuration says."""

USUAL_SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Row = dict[str, Any]


def runs(path: Path) -> list[Row]:
    """The rows to hold an estimate against."""
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return [
        row
        for row in rows
        if row["method"] == "QLoRA GRPO"
        and row["use"].startswith("calibrate")
        and isinstance(row["gib"], int | float)
        and all(row.get("structured", {}).get(column) for column in COLUMNS)
    ]


def shape(row: Row) -> ModelShape:
    """The row's own shape, else what is known of its model. Raises ValueError where that is nothing."""
    given = row.get("shape") or row["structured"].get("shape")
    if given is None:
        return shape_of(ModelConfig(id=row["model"]))
    if {"linear", "other", "lora_per_rank"} <= given.keys():
        return ModelShape(**given)
    config = {SHAPE_NAMES.get(name, name): value for name, value in given.items()}
    plain = ModelShape.from_config(
        {**config, "model_type": "llama", "tie_word_embeddings": config.get("tie_word_embeddings", False)}
    )
    linear = given.get("linear_params_quantisable", plain.linear)
    others = [given.get(name) for name in ("embedding_params", "lm_head_params", "norm_bias_conv_params")]
    sliding = given.get("kv_layers_sliding") or 0
    return ModelShape(
        **vars(plain)
        | {
            "linear": linear,
            "other": plain.other if None in others else sum(others),
            "lora_per_rank": given.get("lora_params_per_rank_usual7", plain.lora_per_rank),
            "targets": {} if "lora_params_per_rank_usual7" in given else plain.targets,
            "full_layers": given.get("kv_layers_full", plain.layers - sliding),
            "sliding_layers": sliding,
            "window": given.get("sliding_window") or 0,
            "fixed_state": given.get("fixed_state_bytes_per_sequence") or 0,
        }
    )


def settings(row: Row) -> Settings:
    """The figures of TRL in this run.

    With bfloat16, TRL keeps the adapter in it too. With float16 nothing trained may be in 16 bits (gradients are
    scaled, and only float32 ones can be scaled back), and peft's prepare_model_for_kbit_training leaves all that is not
    quantised in float32. Where the columns and the words differ, the words count, which are those of who measured.
    """
    given, words = row["structured"], row["settings"].lower()
    half = _any(r"(?<!b)float16|\bfp16\b", words, given.get("compute_dtype"))
    upcast = half or "kbit" in words or "upcast" in words or _float32(given, "upcast", "embed")
    quantisation = str(given.get("quantisation", "nf4_double"))
    length = given["prompt_tokens"] + given["completion_tokens"]
    adapter = 4 if half or _float32(given, "adapter", "lora_dtype") else 2
    eight_bit = _any(r"8[ _-]?bit", given.get("optimizer")) or _any(r"adamw?[ _-]?8[ _-]?bit", words)
    accumulated = re.search(r"accum\w* (\d+)", words)
    batches = given.get("gradient_accumulation") or (int(accumulated[1]) if accumulated else 1)
    return Settings(
        rank=given["lora_r"],
        targets=_targets(given.get("lora_targets", "all")),
        prompt_tokens=given["prompt_tokens"],
        completion_tokens=given["completion_tokens"],
        rows=given["micro_batch"] * batches,
        tokens=given["micro_batch"] * length,
        scored=given["micro_batch"] * given["completion_tokens"],
        longest=length,
        nf4=quantisation.startswith("nf4"),
        double_quantised="double" in quantisation,
        other_number=4 if upcast else None,
        checkpointing=given.get("gradient_checkpointing", True),
        adapter_number=adapter,
        optimizer_bytes=2.03 if eight_bit else 2 * adapter,
        # A fused head holds a few tokens' logits at a time.
        logits_at_once=0 if given.get("chunked_logits") else None,
        # From 1.12 on TRL holds the logits once less in float32.
        logit_bytes=12 if _trl(words) >= (1, 12) else 16,
    )


def _any(pattern: str, *texts: object) -> bool:
    return any(re.search(pattern, str(text).lower()) for text in texts if text is not None)


def _float32(columns: Mapping[str, Any], *about: str) -> bool:
    """Return whether a column about one of these says float32."""
    found = [value for name, value in columns.items() if any(word in name for word in about)]
    return any(value is True or value == 4 or _any("float32|fp32", value) for value in found)


def _trl(words: str) -> tuple[int, int]:
    found = re.search(r"trl (\d+)\.(\d+)", words)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _targets(given: object) -> tuple[str, ...]:
    """The names of the adapted layers, by a list of them or in words; none for all linear layers."""
    if isinstance(given, list):
        return tuple(given)
    return USUAL_SEVEN if "usual" in str(given) else tuple(re.findall(r"[a-z_]+_proj", str(given)))
