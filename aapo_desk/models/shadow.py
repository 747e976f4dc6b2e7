"""Shadow weights: base weights at hand in the compute dtype, for matrix products that come again and again.

bitsandbytes makes a layer's weights out of 4 bits at each use. A shadow holds the same numbers once made: 2 bytes a
weight in 16 bits, 4 in float32. On the CPU they are kept in the layout that oneDNN prefers, which for a few dozen rows
is up to four times as fast as a plain product. Nothing of the adapter is merged in: small updates are not rounded away,
policy and reference share a batch, and there is nothing to refresh after an update.
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
"""How many numbers of rows, from a power of 2 up to the next, packed weights are multiplied with."""
FEW_ROWS = 128
"""Below it: a decode step that rows leave one by one, where nearly every number comes up in a long run."""
PRODUCTS_KEPT = 64
"""How many pairs of a number of rows and a shape of weights are kept compiled. A pair takes half a megabyte, and half
a millisecond to compile anew; it serves every layer of the same shape until the number of rows changes."""
for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # oneDNN's own; torch's (ideep) in front of it
    os.environ.setdefault(cache, str(PRODUCTS_KEPT))  # read at the first product; 1024 where nothing is said
COPIED_AT_MOST = 1 << 21
"""Numbers that are copied to have rows added to them: a gradient of logits takes too much memory for a second one."""


@dataclass(frozen=True)
class ShadowWeight:
    """One weight [out, in], plain or packed by oneDNN; the packing is another one for the way back."""

    weight: Tensor
    transposed: Tensor | None
    """The packed [in, out]; None where the weight is not packed."""

    @classmethod
    def of(cls, weight: Tensor) -> ShadowWeight:
        if weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available():
            return cls(_pack(weight), _pack(weight.t().contiguous()))
        return cls(weight, None)

    def __call__(self, inputs: Tensor) -> Tensor:
        """[..., in] -> [..., out], with a gradient for the inputs."""
        output: Tensor = _Frozen.apply(inputs, self)  # type: ignore[no-untyped-call]
        return output

    def linear(self, inputs: Tensor, bias: Tensor | None) -> Tensor:
        """[..., in] -> [..., out]; no gradient flows."""
        return linear(inputs, self.weight, bias) if self.transposed is None else _product(inputs, self.weight, bias)

    def backward(self, gradient: Tensor) -> Tensor:
        """The gradient of the inputs [..., in] from that of the outputs [..., out]."""
        return gradient @ self.weight if self.transposed is None else _product(gradient, self.transposed, None)


@dataclass(frozen=True)
class FourBitWeight:
    """A layer's weight, made of its 4 bits at each use and gone behind it: slower than a shadow, and takes nothing."""

    layer: Any

    def linear(self, inputs: Tensor, bias: Tensor | None) -> Tensor:
        """[..., in] -> [..., out]; no gradient flows."""
        return linear(inputs, plain_weight(self.layer), bias)

    def backward(self, gradient: Tensor) -> Tensor:
        """The gradient of the inputs [..., in] from that of the outputs [..., out]."""
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
    """[..., in] -> [..., out].

    oneDNN compiles code for each number of rows and each shape of a weight. Prompts and rollouts have ever new lengths,
    so rows of zeros are added up to the next of few numbers, which are then found compiled more often.
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
    """The least length from ``longest`` on at which so many rows of it need no zeros added in a product."""
    while rows * longest % _step(rows * longest):
        longest += 1
    return longest


def _step(rows: int) -> int:
    """What the number of rows is to be a multiple of: 1 below 16, then up to an 8th of it, a 16th from 128 on."""
    octave = OF_FEW_ROWS if rows < FEW_ROWS else ROWS_AN_OCTAVE
    return max(1, (1 << rows.bit_length()) // (2 * octave))


@dataclass(frozen=True)
class Shadow:
    """The shadows of a model's adapted layers, by peft's layer around them, and of its head."""

    layers: Mapping[nn.Module, ShadowWeight]
    head: ShadowWeight | None

    @property
    def packed(self) -> bool:
        """Whether oneDNN multiplies by them."""
        return any(weight.transposed is not None for weight in self.layers.values())


@torch.no_grad()
def make_shadow(adapted: Iterable[Any], head: Any) -> Shadow:
    """Shadows of these peft layers, and of a head that has no adapter.

    On a GPU only 4-bit weights get one; on the CPU the others gain from the packing.
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
    """The weights [out, in] of a linear layer in the dtype that it computes in."""
    if not is_four_bit(layer):
        weight: Tensor = layer.weight.data
        return weight
    from bitsandbytes.functional import dequantize_4bit

    state = layer.weight.quant_state
    return dequantize_4bit(layer.weight.data, state).to(layer.compute_dtype or state.dtype)
