"""The KV cache of a rollout, allocated once with room for the tokens to come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


def roomy_cache(config: Any, length: int) -> RowCache:
    """Make a KV cache for up to ``length`` tokens.

    Layers with a sliding window or another kind of state keep the cache layers of transformers.
    """
    cache = RowCache(config=config)
    cache.layers = [RoomyLayer(length) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class RowCache(DynamicCache):
    """A KV cache whose rows can be selected and repeated, including those of recurrent or convolutional layers."""

    def batch_select_indices(self, indices: Tensor) -> None:
        for layer in self.layers:
            # Layers with a recurrent or convolutional state have this operation only under another name.
            select: Any = getattr(layer, "batch_select_indices", None) or layer.reorder_cache
            select(indices)

    def as_tuples(self) -> tuple[tuple[Tensor, Tensor], ...] | None:
        """Return keys and values by layer, as unsloth's forward pass takes them; None if the cache is empty."""
        layers: list[Any] = self.layers
        return tuple((layer.keys, layer.values) for layer in layers) if self.get_seq_length() else None

    def take_tuples(self, tuples: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Append the new part of these keys and values; unsloth's forward pass returns old and new ones together."""
        filled = self.get_seq_length()
        layers: list[Any] = self.layers
        for layer, (keys, values) in zip(layers, tuples, strict=True):
            layer.update(keys[:, :, filled:], values[:, :, filled:])


class RoomyLayer(DynamicLayer):
    """A cache layer that writes new tokens after the old ones, instead of copying all of them at each step.

    ``keys`` and ``values`` are the filled parts of two ``buffers`` [rows, heads, length, head size].
    """

    def __init__(self, length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = length

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = [_room(states, self.length) for states in (key_states, value_states)]
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        return self._fill(end)

    def batch_select_indices(self, indices: Tensor) -> None:
        end = self.get_seq_length()
        chosen = [buffer[:, :, :end][indices] for buffer in self.buffers]
        self.buffers = [_room(states, self.length) for states in chosen]
        for buffer, states in zip(self.buffers, chosen, strict=True):
            buffer[:, :, :end] = states
        self._fill(end)

    def skip_to(self, tokens: int) -> None:
        """Set the number of tokens in the cache to ``tokens``; those that were not written are zeros."""
        for buffer in self.buffers:
            buffer[:, :, self.get_seq_length() : tokens] = 0  # already 0, but only a write allocates the memory
        self._fill(tokens)

    def _fill(self, end: int) -> tuple[Tensor, Tensor]:
        keys, values = (buffer[:, :, :end] for buffer in self.buffers)
        self.keys, self.values = keys, values
        return keys, values


def _room(states: Tensor, length: int) -> Tensor:
    rows, heads, _, size = states.shape
    return torch.zeros(rows, heads, length, size, dtype=states.dtype, device=states.device)
