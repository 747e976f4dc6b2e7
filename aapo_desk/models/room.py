"""A loaded model's shape, its device's free memory, and the recognition of out-of-memory errors."""

from __future__ import annotations

import logging

import torch

from aapo_desk.hardware import spare_memory
from aapo_desk.memory import ModelShape
from aapo_desk.models.policy import Policy

log = logging.getLogger(__name__)

OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""Phrases in the message of a plain RuntimeError: the CPU allocator and CUDA's libraries raise no other type."""


def shape_of(policy: Policy) -> ModelShape:
    """Return the model's shape; if its architecture is not known, that of a Llama with the same dimensions.

    Raises ValueError if the model's configuration does not contain even those dimensions.
    """
    config = policy.causal.config.to_dict()
    try:
        return ModelShape.from_config(config)
    except ValueError as error:
        log.warning("%s; memory is estimated as for a Llama of the same size", error)
        return ModelShape.from_config({**policy.causal.config.get_text_config().to_dict(), "model_type": "llama"})


def free_bytes(device: torch.device) -> int:
    """Return the bytes of the device's memory that are unused and that this process may allocate."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return spare_memory().available


def ran_out(error: BaseException) -> bool:
    """Return whether an exception means out of memory: torch's allocator on either device, CUDA itself, or Python."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return isinstance(error, RuntimeError) and any(phrase in message for phrase in OUT_OF_MEMORY)
