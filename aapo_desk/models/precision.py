"""Which models float16 does not carry. Imports nothing heavy."""

from __future__ import annotations

from typing import Any

from aapo_desk.config import ConfigError, ModelConfig, Problem
from aapo_desk.hardware import BFLOAT16_FROM

OVERFLOWS_FLOAT16 = {
    "gemma3": "Gemma 3",
    "gemma3_text": "Gemma 3",
    "gemma3n": "Gemma 3n",
    "gemma3n_text": "Gemma 3n",
    "gemma4": "Gemma 4",
    "gemma4_text": "Gemma 4",
    "qwen3_5": "Qwen3.5",
    "qwen3_5_text": "Qwen3.5",
    "qwen3_5_moe": "Qwen3.5",
    "qwen3_5_moe_text": "Qwen3.5",
}
"""Families by model_type. Their activations leave float16's range, or their gradients come out as no numbers: unsloth's
models/loader.py names them and computes them in float32 where there is no bfloat16. Loss scaling, which keeps small
gradients from vanishing, does not help."""


def overflowing(config: Any) -> str | None:
    """The name of the family that float16 does not carry, where this transformers configuration is of one."""
    kinds = (config.model_type, config.get_text_config().model_type)
    return next((OVERFLOWS_FLOAT16[kind] for kind in kinds if kind in OVERFLOWS_FLOAT16), None)


def refusal(model: ModelConfig, family: str, capability: tuple[int, int] | None) -> ConfigError:
    """Why a model of ``family`` is not computed in float16, and what to do. ``capability``: the GPU's, if it is one."""
    why, better = "", "auto"
    if capability is not None and capability < BFLOAT16_FROM:
        why = f"this GPU (compute capability {capability[0]}.{capability[1]}) has no bfloat16, which comes with 8.0; "
        better = "float32 (slower, and twice the memory beside the 4-bit weights)"
    message = (
        f"{why}{family} does not compute in float16: its numbers leave the range; set model.compute_dtype={better}, "
        "or take another family, such as Qwen3 or Llama"
    )
    return ConfigError(Problem("model.compute_dtype", message, model.compute_dtype))
