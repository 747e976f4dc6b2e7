"""What decides how much may be computed at once: a loaded model's shape, and its device's free memory."""

from __future__ import annotations

import logging

import torch

from aapo_desk.hardware import spare_memory
from aapo_desk.memory import ModelShape
from aapo_desk.models.policy import Policy

log = logging.getLogger(__name__)


def shape_of(policy: Policy) -> ModelShape:
    """The model's shape; of a model whose memory is not known, that of a Llama with the same numbers.

    Raises ValueError where the model's configuration does not even say those.
    """
    config = policy.causal.config.to_dict()
    try:
        return ModelShape.from_config(config)
    except ValueError as error:
        log.warning("%s; taken for a Llama of its size", error)
        return ModelShape.from_config({**policy.causal.config.get_text_config().to_dict(), "model_type": "llama"})


def free_bytes(device: torch.device) -> int:
    """The device's memory that nobody uses, and that this process may take."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return spare_memory().available
