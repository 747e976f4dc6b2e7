"""Model families that cannot be computed in float16. Imports nothing heavy."""

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
"""Families by model_type whose activations exceed float16's range, or whose gradients become NaN in it. The list is
from unsloth's models/loader.py, which computes them in float32 if there is no bfloat16. Loss scaling, which keeps small
gradients from vanishing, does not help."""


def overflowing(config: Any) -> str | None:
    """Return the name of the family if this transformers configuration belongs to one that overflows float16."""
    kinds = (config.model_type, config.get_text_config().model_type)
    return next((OVERFLOWS_FLOAT16[kind] for kind in kinds if kind in OVERFLOWS_FLOAT16), None)


def refusal(model: ModelConfig, family: str, capability: tuple[int, int] | None) -> ConfigError:
    """Return the error that explains why a model of ``family`` is not computed in float16, and what to do.

    ``capability`` is the GPU's compute capability; None if there is no GPU.
    """
    why, better = "", "auto"
    if capability is not None and capability < BFLOAT16_FROM:
        why = f"this GPU (compute capability {capability[0]}.{capability[1]}) has no bfloat16, which comes with 8.0; "
        better = "float32 (slower, and twice the memory besides the 4-bit weights)"
    message = (
        f"{why}{family} cannot be computed in float16: its values exceed the range; set "
        f"model.compute_dtype={better}, or choose another family, such as Qwen3 or Llama"
    )
    return ConfigError(Problem("model.compute_dtype", message, model.compute_dtype))
