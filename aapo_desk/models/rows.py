"""The computation of LoRA layers: in a rollout with the adapter on or off per row, in an update by our own function.

    y = x W^T + mask · s (x A^T) B^T          mask: 1 for the policy's rows, 0 for the reference's

The mask is applied between A and B, to r numbers per token. A row whose mask is 0 gets exactly the numbers that it
would get with the adapter switched off. W is dequantized from its 4 bits at each use, or is a dequantized weight
(``Shadow``). If the reference has an adapter of its own (the one that training began from), it is added in the same way
with 1 - mask.

An adapter is kept in float32. If a layer computes in 16 bits, its products use a 16-bit copy of the adapter, as usual
in mixed precision; the gradient accumulated over micro-batches and the optimiser's step stay in float32.

This holds for plain LoRA on linear layers, which is what this package creates. On any other kind of layer the mask is
applied to the output of the adapter's own B.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from aapo_desk.models.shadow import FourBitWeight, FrozenWeight, Shadow, ShadowWeight, is_four_bit

ADAPTER = "default"

StartWeights = Mapping[Any, tuple[Tensor, Tensor]]
"""For each of peft's layers, A [r, in] and B [out, r] of the adapter that training began from."""


class RowMask:
    """The rows of a batch that have the adapter on."""

    def __init__(self) -> None:
        self._rows: Tensor | None = None
        self._factors: dict[torch.dtype, Tensor] = {}

    def set(self, rows: Tensor) -> None:
        """Set the rows [B] bool that have the adapter on. If all do, masking is skipped."""
        self._rows, self._factors = None if bool(rows.all()) else rows, {}

    def hold(self, rows: Tensor) -> None:
        """Set the rows [B] bool without reading their values, which would wait for the GPU."""
        self._rows, self._factors = rows, {}

    def apply(self, output: Tensor) -> Tensor:
        """Return ``output`` [B, ...] with 0 in the rows whose adapter is off."""
        return output if self._rows is None else output * self._factor(output)

    @property
    def masks(self) -> bool:
        """Return whether any row may have the adapter off."""
        return self._rows is not None

    def apply_to_others(self, output: Tensor) -> Tensor:
        """Return ``output`` [B, ...] with 0 in the rows whose adapter is on."""
        return output if self._rows is None else output * (1 - self._factor(output))

    def _factor(self, output: Tensor) -> Tensor:
        """Return the factor for ``output`` [B, ...], 1 or 0 per row; converted once for all layers."""
        assert self._rows is not None
        if output.dtype not in self._factors:
            self._factors[output.dtype] = self._rows.to(output.dtype)
        return self._factors[output.dtype].reshape(-1, *[1] * (output.dim() - 1))


def adapted_layers(model: nn.Module) -> list[Any]:
    """Return peft's layers that have an adapter, in the model's order."""
    return [module for module in model.modules() if ADAPTER in getattr(module, "lora_B", {})]


@contextmanager
def adapter_by_row(model: nn.Module, shadow: Shadow | None, start: StartWeights | None = None) -> Iterator[RowMask]:
    """Make the LoRA layers use the yielded mask and the dequantized weights inside this context. No gradient flows.

    ``start`` is the adapter that masked rows have instead, for linear layers only.
    """
    mask = RowMask()
    hooks = []
    replaced = []
    for layer in adapted_layers(model):
        if isinstance(layer.base_layer, nn.Linear):
            weight, other = shadow.layers.get(layer) if shadow else None, start.get(layer) if start else None
            pair = _computing(layer, *_weights(layer))
            other = _computing(layer, *other) if other else None
            layer.forward = partial(_forward, layer, weight, pair, other, mask)
            replaced.append(layer)
        else:
            behind = layer.lora_B[ADAPTER]
            hooks.append(behind.register_forward_hook(lambda _module, _inputs, output: mask.apply(output)))
    try:
        yield mask
    finally:
        for layer in replaced:
            del layer.forward  # uncovers the method of the class
        for hook in hooks:
            hook.remove()


def _weights(layer: Any) -> tuple[Tensor, Tensor]:
    """Return A [r, in] and B [out, r] of a layer."""
    return layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight


def _dtype(base: Any) -> torch.dtype:
    """Return the dtype that a linear layer computes in."""
    dtype: torch.dtype = base.weight.dtype
    if is_four_bit(base):
        dtype = base.compute_dtype or base.weight.quant_state.dtype
    return dtype


def _computing(layer: Any, down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return A and B as used in products: 16-bit copies if the layer computes in 16 bits, else A and B themselves."""
    dtype = _dtype(layer.base_layer)
    if dtype.itemsize == 2 and down.dtype == torch.float32:
        return down.detach().to(dtype), up.detach().to(dtype)
    return down, up


def _forward(
    layer: Any,
    weight: ShadowWeight | None,
    pair: tuple[Tensor, Tensor],
    start: tuple[Tensor, Tensor] | None,
    mask: RowMask,
    inputs: Tensor,
) -> Tensor:
    """Compute one linear LoRA layer with the row mask, [B, ..., in] -> [B, ..., out]."""
    base, scale = layer.base_layer, layer.scaling[ADAPTER]
    output: Tensor = base(inputs) if weight is None else weight.linear(inputs, base.bias)
    down, up = pair
    output = _add(output, mask.apply(linear(inputs.to(down.dtype), down)), up, scale)
    if start is not None and mask.masks:
        down, up = start
        output = _add(output, mask.apply_to_others(linear(inputs.to(down.dtype), down)), up, scale)
    return output


def _add(output: Tensor, low: Tensor, up: Tensor, scale: float) -> Tensor:
    """Return ``output`` [B, ..., out] + ``scale`` · ``low`` [B, ..., r] B^T, computed in place if dtypes allow it."""
    if output.dtype == up.dtype:
        output.view(-1, output.shape[-1]).addmm_(low.view(-1, low.shape[-1]), up.t(), alpha=scale)
        return output
    return output + (scale * linear(low, up)).to(output.dtype)


@contextmanager
def trained_layers(model: nn.Module, shadow: Shadow | None) -> Iterator[None]:
    """Compute linear LoRA layers by ``_AdaptedLinear`` inside this context, forward and backward, with the adapter on.

    It uses the dequantized weights if there are any, else it dequantizes the 4-bit weights at each use. peft computes
    all other layers, layers with dropout, and layers whose adapter is not multiplied in the layer's compute dtype.
    """
    replaced = []
    for layer in adapted_layers(model):
        pair = _computing(layer, *_weights(layer))
        weight = _frozen_weight(layer, shadow, pair[0].dtype)
        if weight is not None and isinstance(layer.lora_dropout[ADAPTER], nn.Identity):
            layer.forward = partial(_trained, layer, weight, pair)
            replaced.append(layer)
    try:
        yield
    finally:
        for layer in replaced:
            del layer.forward


def _frozen_weight(layer: Any, shadow: Shadow | None, multiplied: torch.dtype) -> FrozenWeight | None:
    """Return the base weights of a layer for an update; None if peft is to compute the layer.

    ``multiplied`` is the dtype of the products with the layer's adapter.
    """
    base, dtype = layer.base_layer, _dtype(layer.base_layer)
    if multiplied != dtype:
        return None
    if shadow is not None and layer in shadow.layers:
        weight = shadow.layers[layer]
        return weight if weight.weight.dtype == dtype else None
    if is_four_bit(base):
        return FourBitWeight(base) if shadow is None else None
    # In 16 bits this avoids the float32 copies that peft makes of an adapter's inputs.
    return ShadowWeight(base.weight.data, None) if dtype.itemsize == 2 and type(base) is nn.Linear else None


def _trained(layer: Any, weight: FrozenWeight, pair: tuple[Tensor, Tensor], inputs: Tensor) -> Tensor:
    arguments = (inputs, *_weights(layer), pair, layer.scaling[ADAPTER], weight, layer.base_layer.bias)
    output: Tensor = _AdaptedLinear.apply(*arguments)  # type: ignore[no-untyped-call]
    return output


class _AdaptedLinear(torch.autograd.Function):
    """y = x W^T + b + s (x A^T) B^T with W and b frozen. Keeps x and s x A^T for the backward pass.

    ``pair`` is A and B as used in products; gradients have the dtype of A and B themselves.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        down: Tensor,
        up: Tensor,
        pair: tuple[Tensor, Tensor],
        scale: float,
        weight: FrozenWeight,
        bias: Tensor | None,
    ) -> Tensor:
        flat = inputs.reshape(-1, inputs.shape[-1])
        low = (flat @ pair[0].t()).mul_(scale)
        ctx.save_for_backward(flat, low, *pair)
        ctx.scale, ctx.weight, ctx.kept = scale, weight, down.dtype
        return weight.linear(flat, bias).addmm_(low, pair[1].t()).view(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        flat, low, down, up = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, up.shape[0])
        grad_low = (gradient @ up).mul_(ctx.scale)
        grad_inputs = None
        if ctx.needs_input_grad[0]:
            grad_inputs = ctx.weight.backward(gradient).addmm_(grad_low, down)
            grad_inputs = grad_inputs.view(*gradients[0].shape[:-1], -1)
        grad_down, grad_up = (product.to(ctx.kept) for product in (grad_low.t() @ flat, gradient.t() @ low))
        return grad_inputs, grad_down, grad_up, None, None, None, None
