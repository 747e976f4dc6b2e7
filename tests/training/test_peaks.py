"""Memory as the system counts it."""

from __future__ import annotations

import torch

from aapo_desk.training.peaks import freed_at_once, held_mb

CPU = torch.device("cpu")


def left_of_holes() -> float:
    """MiB that stay where nine of ten tensors of 2 MiB, 200 in all, are freed between those that are kept."""
    before = held_mb(CPU)
    tensors = [torch.ones(1 << 19) for _ in range(200)]
    kept = tensors[::10]
    del tensors
    left = held_mb(CPU) - before
    del kept
    return left


def test_what_is_freed_while_a_model_is_loaded_goes_back_at_once() -> None:
    with freed_at_once():
        assert 40 <= left_of_holes() + 10 < 100
    assert left_of_holes() > 200  # and afterwards is kept for the next that asks
