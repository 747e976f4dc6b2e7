"""How the adapted layers are computed: in a rollout the adapter on or off by row, in an update by weights of our own.

    y = x W^T + mask · s (x A^T) B^T          mask: 1 for the policy's rows, 0 for the reference's

The mask stands between A and B, on r numbers a token. A row whose mask is 0 gets the very numbers of the adapter
switched off. W is read from its 4 bits at each use, or is a shadow weight. Where the reference has an adapter of its
own (the one that training began from), that is added likewise with 1 - mask.

For plain LoRA on linear layers, which is what this package makes. An adapter on another kind of layer is masked behind
its own forward.
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
"""By peft's layer: A [r, in] and B [out, r] of the adapter that training began from."""


class RowMask:
    """Which rows of the batch have the adapter on."""

    def __init__(self) -> None:
        self._factor: Tensor | None = None

    def set(self, rows: Tensor) -> None:
        """``rows`` [B] bool. All on costs nothing."""
        self._factor = None if bool(rows.all()) else rows

    def hold(self, rows: Tensor) -> None:
        """Let ``rows`` [B] bool, whose content may change, decide from now on; it is not looked at here."""
        self._factor = rows

    def apply(self, output: Tensor) -> Tensor:
        """``output`` [B, ...] with the masked rows 0."""
        if self._factor is None:
            return output
        return output * _factor(self._factor, output)

    @property
    def masks(self) -> bool:
        """Whether any row may have the adapter off."""
        return self._factor is not None

    def apply_to_others(self, output: Tensor) -> Tensor:
        """``output`` [B, ...] with the rows 0 that ``apply`` leaves."""
        return output if self._factor is None else output * _factor(~self._factor, output)


def _factor(rows: Tensor, output: Tensor) -> Tensor:
    """[B] bool as what ``output`` [B, ...] is multiplied by."""
    return rows.to(output.dtype).reshape(-1, *[1] * (output.dim() - 1))


def adapted_layers(model: nn.Module) -> list[Any]:
    """peft's layers that hold an adapter, in the model's order."""
    return [module for module in model.modules() if ADAPTER in getattr(module, "lora_B", {})]


@contextmanager
def adapter_by_row(model: nn.Module, shadow: Shadow | None, start: StartWeights | None = None) -> Iterator[RowMask]:
    """Inside, the adapted layers obey the mask yielded here and use the shadow weights. No gradient flows there.

    ``start``: what masked rows have on instead, on linear layers.
    """
    mask = RowMask()
    hooks = []
    replaced = []
    for layer in adapted_layers(model):
        if isinstance(layer.base_layer, nn.Linear):
            weight, other = shadow.layers.get(layer) if shadow else None, start.get(layer) if start else None
            layer.forward = partial(_forward, layer, weight, other, mask)
            replaced.append(layer)
        else:
            behind = layer.lora_B[ADAPTER]
            hooks.append(behind.register_forward_hook(lambda _module, _inputs, output: mask.apply(output)))
    try:
        yield mask
    finally:
        for layer in replaced:
            del layer.forward  # the class's own is seen again
        for hook in hooks:
            hook.remove()


def _forward(
    layer: Any, weight: ShadowWeight | None, start: tuple[Tensor, Tensor] | None, mask: RowMask, inputs: Tensor
) -> Tensor:
    """One adapted linear layer: [B, ..., in] -> [B, ..., out]."""
    base = layer.base_layer
    output: Tensor = base(inputs) if weight is None else weight.linear(inputs, base.bias)
    down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    output = _add(output, mask.apply(linear(inputs.to(down.dtype), down) * layer.scaling[ADAPTER]), up)
    if start is not None and mask.masks:
        down, up = start
        output = _add(output, mask.apply_to_others(linear(inputs.to(down.dtype), down) * layer.scaling[ADAPTER]), up)
    return output


def _add(output: Tensor, low: Tensor, up: Tensor) -> Tensor:
    """``output`` [B, ..., out] + ``low`` [B, ..., r] B^T, in place where that can be."""
    if output.dtype == up.dtype:
        output.view(-1, output.shape[-1]).addmm_(low.view(-1, low.shape[-1]), up.t())
        return output
    return output + linear(low, up).to(output.dtype)


@contextmanager
def trained_layers(model: nn.Module, shadow: Shadow | None) -> Iterator[None]:
    """Inside, adapted layers are computed by ``_AdaptedLinear``, forward and backward, the adapter on.

    By their shadow weights; where there are none, on the CPU, by weights made of their 4 bits at each use. Left to peft
    are other layers, layers with dropout, and those whose adapter has another dtype than the layer computes in.
    """
    replaced = []
    for layer in adapted_layers(model):
        weight = _frozen_weight(layer, shadow)
        if weight is not None and isinstance(layer.lora_dropout[ADAPTER], nn.Identity):
            layer.forward = partial(_trained, layer, weight)
            replaced.append(layer)
    try:
        yield
    finally:
        for layer in replaced:
            del layer.forward


def _frozen_weight(layer: Any, shadow: Shadow | None) -> FrozenWeight | None:
    """What stands for a layer's base weights in an update; None: they are left to the layer."""
    adapter: Tensor = layer.lora_A[ADAPTER].weight
    if shadow is not None:
        weight = shadow.layers.get(layer)
        return weight if weight is not None and weight.weight.dtype == adapter.dtype else None
    base = layer.base_layer
    fits = is_four_bit(base) and adapter.device.type == "cpu" and base.compute_dtype == adapter.dtype
    return FourBitWeight(base) if fits else None


def _trained(layer: Any, weight: FrozenWeight, inputs: Tensor) -> Tensor:
    down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    arguments = (inputs, down, up, layer.scaling[ADAPTER], weight, layer.base_layer.bias)
    output: Tensor = _AdaptedLinear.apply(*arguments)  # type: ignore[no-untyped-call]
    return output


class _AdaptedLinear(torch.autograd.Function):
    """y = x W^T + b + s (x A^T) B^T with W and b frozen. Keeps x and x A^T for the way back."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, down: Tensor, up: Tensor, scale: float, weight: FrozenWeight, bias: Tensor | None
    ) -> Tensor:
        flat = inputs.reshape(-1, inputs.shape[-1])
        low = (flat @ down.t()).mul_(scale)
        ctx.save_for_backward(flat, low, down, up)
        ctx.scale, ctx.weight = scale, weight
        return weight.linear(flat, bias).addmm_(low, up.t()).view(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        flat, low, down, up = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, up.shape[0])
        grad_low = (gradient @ up).mul_(ctx.scale)
        grad_inputs = None
        if ctx.needs_input_grad[0]:
            grad_inputs = ctx.weight.backward(gradient).addmm_(grad_low, down)
            grad_inputs = grad_inputs.view(*gradients[0].shape[:-1], -1)
        return grad_inputs, grad_low.t() @ flat, gradient.t() @ low, None, None, None
