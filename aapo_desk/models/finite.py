"""Where tensors hold NaN or infinity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def broken_tensor(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds a number that is not finite; None where all are finite."""
    if not tensors:
        return None
    finite = [torch.isfinite(value.detach()).all() for value in tensors.values()]
    flags = torch.stack([flag.to(finite[0].device) for flag in finite]).tolist()  # one wait for a GPU, not hundreds
    return next((name for name, fine in zip(tensors, flags, strict=True) if not fine), None)
