"""Dequantized weights ("shadow"): base weights kept in the compute dtype, for repeated matrix products.

bitsandbytes dequantizes a layer's weights from 4 bits at each use. A shadow keeps the same numbers, dequantized once: 2
bytes per weight in 16 bits, 4 in float32. On the CPU they are kept in the layout that oneDNN prefers, which for a few
dozen rows is up to four times as fast as a plain product. The adapter is not merged in: so small updates are not
rounded away, policy and reference share a batch, and nothing has to be refreshed after an update.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

ROWS_AN_OCTAVE, OF_FEW_ROWS = 16, 8
"""How many different row counts are used between a power of 2 and the next in products with packed weights."""
FEW_ROWS = 128
"""Below this row count ``OF_FEW_ROWS`` applies: rows leave a decode step one by one, so nearly every count occurs in a
long run."""
PRODUCTS_KEPT = 64
"""How many pairs of a row count and a weight shape stay compiled. A pair takes half a megabyte, and half a millisecond
to compile again; it is used by every layer of the same shape until the row count changes."""
for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # oneDNN's cache; torch's (ideep's)
    os.environ.setdefault(cache, str(PRODUCTS_KEPT))  # read at the first product; default 1024
COPIED_AT_MOST = 1 << 21
"""The most numbers that are copied as a whole to pad rows: a gradient of logits is too large to be held twice."""


@dataclass(frozen=True)
class ShadowWeight:
    """One dequantized weight [out, in], plain or packed by oneDNN, with a second packing for the backward pass."""

    weight: Tensor
    transposed: Tensor | None
    """The packed transpose [in, out]; None if the weight is not packed."""

    @classmethod
    def of(cls, weight: Tensor) -> ShadowWeight:
        if weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available():
            return cls(_pack(weight), _pack(weight.t().contiguous()))
        return cls(weight, None)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Compute [..., in] -> [..., out], with a gradient for the inputs."""
        output: Tensor = _Frozen.apply(inputs, self)  # type: ignore[no-untyped-call]
        return output

    def linear(self, inputs: Tensor, bias: Tensor | None) -> Tensor:
        """Compute [..., in] -> [..., out]; no gradient flows."""
        return linear(inputs, self.weight, bias) if self.transposed is None else _product(inputs, self.weight, bias)

    def backward(self, gradient: Tensor) -> Tensor:
        """Return the gradient by the inputs [..., in] from that by the outputs [..., out]."""
        return gradient @ self.weight if self.transposed is None else _product(gradient, self.transposed, None)


@dataclass(frozen=True)
class FourBitWeight:
    """A layer's weight, dequantized at each use and freed afterwards: slower than a shadow, but takes no memory."""

    layer: Any

    def linear(self, inputs: Tensor, bias: Tensor | None) -> Tensor:
        """Compute [..., in] -> [..., out]; no gradient flows."""
        return linear(inputs, plain_weight(self.layer), bias)

    def backward(self, gradient: Tensor) -> Tensor:
        """Return the gradient by the inputs [..., in] from that by the outputs [..., out]."""
        return gradient @ plain_weight(self.layer)


FrozenWeight = ShadowWeight | FourBitWeight


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: ShadowWeight) -> Tensor:
        ctx.weight = weight
        return weight.linear(inputs, None)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.weight.backward(gradients[0]), None


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    return packed


def _product(inputs: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply with a packed weight, [..., in] -> [..., out].

    oneDNN compiles code for each row count and each weight shape. The lengths of prompts and rollouts keep changing, so
    the inputs are padded with rows of zeros to one of a few row counts, for which compiled code is more often cached.
    """
    flat = inputs.reshape(-1, inputs.shape[-1])
    rows = len(flat)
    step = _step(rows)
    more = -rows % step
    if not more:
        output = _by_onednn(flat, packed, bias)
    elif flat.numel() <= COPIED_AT_MOST:
        output = _by_onednn(pad(flat, (0, 0, 0, more)), packed, bias)[:rows]
    else:
        start = rows // step * step
        last = _by_onednn(pad(flat[start:], (0, 0, 0, more)), packed, bias)
        output = torch.cat([_by_onednn(flat[:start], packed, bias), last[: rows - start]])
    return output.view(*inputs.shape[:-1], output.shape[-1])


def _by_onednn(inputs: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    output: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, packed, bias, "none", [], "")
    return output


def even_length(rows: int, longest: int) -> int:
    """Return the smallest length >= ``longest`` at which ``rows`` rows of that length need no padding in a product."""
    while rows * longest % _step(rows * longest):
        longest += 1
    return longest


def _step(rows: int) -> int:
    """Return what the row count is padded to a multiple of: 1 below 16, then up to an 8th of it, from 128 a 16th."""
    octave = OF_FEW_ROWS if rows < FEW_ROWS else ROWS_AN_OCTAVE
    return max(1, (1 << rows.bit_length()) // (2 * octave))


@dataclass(frozen=True)
class Shadow:
    """The dequantized weights of a model's LoRA layers, by peft's wrapper layer, and of its head."""

    layers: Mapping[nn.Module, ShadowWeight]
    head: ShadowWeight | None

    @property
    def packed(self) -> bool:
        """Return whether the weights are packed for oneDNN."""
        return any(weight.transposed is not None for weight in self.layers.values())


@torch.no_grad()
def make_shadow(adapted: Iterable[Any], head: Any) -> Shadow:
    """Dequantize the weights of these peft layers, and of a head that has no adapter.

    On a GPU only 4-bit weights are kept dequantized; on the CPU all weights are kept, since packing speeds up the
    others too.
    """
    layers = {}
    for layer in adapted:
        base = layer.base_layer
        if isinstance(base, nn.Linear) and (is_four_bit(base) or base.weight.device.type == "cpu"):
            layers[layer] = ShadowWeight.of(plain_weight(base))
    on_cpu = type(head) is nn.Linear and head.bias is None and head.weight.device.type == "cpu"
    return Shadow(layers, ShadowWeight.of(head.weight) if on_cpu else None)


def is_four_bit(layer: nn.Module) -> bool:
    return getattr(getattr(layer, "weight", None), "quant_state", None) is not None


def plain_weight(layer: Any) -> Tensor:
    """Return the weights [out, in] of a linear layer in the dtype that it computes in."""
    if not is_four_bit(layer):
        weight: Tensor = layer.weight.data
        return weight
    from bitsandbytes.functional import dequantize_4bit

    state = layer.weight.quant_state
    return dequantize_4bit(layer.weight.data, state).to(layer.compute_dtype or state.dtype)
