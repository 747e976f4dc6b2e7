"""Find tensors that contain NaN or infinity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def broken_tensor(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor that contains a non-finite number; None if all are finite."""
    if not tensors:
        return None
    finite = [torch.isfinite(value.detach()).all() for value in tensors.values()]
    flags = torch.stack([flag.to(finite[0].device) for flag in finite]).tolist()  # one GPU sync, not one per tensor
    return next((name for name, fine in zip(tensors, flags, strict=True) if not fine), None)
