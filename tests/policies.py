"""Small policies for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from aapo_desk.config import LoraConfig, ModelConfig
from aapo_desk.models import sources
from aapo_desk.models.loading import load_policy
from aapo_desk.models.policy import Policy


def load_tiny(
    folder: Path,
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32",
    quantization: Literal["nf4", "none"] = "none",
    device: Literal["cpu", "cuda"] = "cpu",
    trained: bool = True,
) -> Policy:
    """A policy from a folder. ``trained``: its adapter's B is random, so that policy and reference differ."""
    model = ModelConfig(id=str(folder), device=device, quantization=quantization, compute_dtype=dtype)
    policy = load_policy(model, LoraConfig(r=4, alpha=8), sources.resolve(model), seed=1)
    if trained:
        generator = torch.Generator().manual_seed(2)
        for name, parameter in policy.adapter_parameters().items():
            if "lora_B" in name:
                parameter.data = (0.3 * torch.randn(parameter.shape, generator=generator)).to(parameter)
    return policy
