"""The keys and values of a rollout, kept where there is room for the tokens to come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


def roomy_cache(config: Any, length: int) -> RowCache:
    """A cache for up to ``length`` tokens. Layers with a sliding window or another state keep transformers' own."""
    cache = RowCache(config=config)
    cache.layers = [RoomyLayer(length) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class RowCache(DynamicCache):
    """A cache whose rows can be chosen and repeated, those with a recurrent or convolutional state too."""

    def batch_select_indices(self, indices: Tensor) -> None:
        for layer in self.layers:
            # Layers that keep such a state know the same under another name alone.
            select: Any = getattr(layer, "batch_select_indices", None) or layer.reorder_cache
            select(indices)

    def as_tuples(self) -> tuple[tuple[Tensor, Tensor], ...] | None:
        """Keys and values by layer, as unsloth's forward takes them; None where nothing is there yet."""
        layers: list[Any] = self.layers
        return tuple((layer.keys, layer.values) for layer in layers) if self.get_seq_length() else None

    def take_tuples(self, tuples: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Add what is new in these keys and values, as that forward gives them: old and new in one."""
        filled = self.get_seq_length()
        layers: list[Any] = self.layers
        for layer, (keys, values) in zip(layers, tuples, strict=True):
            layer.update(keys[:, :, filled:], values[:, :, filled:])


class RoomyLayer(DynamicLayer):
    """A growing layer that writes new tokens behind the old ones, instead of copying all of them at each step.

    ``keys`` and ``values`` are what is filled of two ``buffers`` [rows, heads, length, head size].
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
        """Hold so many tokens, those that were not written as zeros."""
        for buffer in self.buffers:
            buffer[:, :, self.get_seq_length() : tokens] = 0  # also where it is zero: only then is the memory taken
        self._fill(tokens)

    def _fill(self, end: int) -> tuple[Tensor, Tensor]:
        keys, values = (buffer[:, :, :end] for buffer in self.buffers)
        self.keys, self.values = keys, values
        return keys, values


def _room(states: Tensor, length: int) -> Tensor:
    rows, heads, _, size = states.shape
    return torch.zeros(rows, heads, length, size, dtype=states.dtype, device=states.device)
