"""The policy: one base model in memory with a LoRA adapter. The reference is the same model with the adapter off.

If a run began from an existing adapter, its reference is the base model with that adapter, frozen as it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aapo_desk.models.rows import ADAPTER, RowMask, StartWeights, adapted_layers, adapter_by_row, trained_layers
from aapo_desk.models.shadow import Shadow, make_shadow

Backend = Literal["transformers", "unsloth"]
"""The library that loaded a model and whose layers compute it."""


@dataclass
class Policy:
    """A loaded model with its adapter, its tokenizer, and how it is to be computed."""

    model: Any
    """The PeftModel."""
    tokenizer: Any
    device: torch.device
    eos_ids: tuple[int, ...]
    """Every token that ends a completion (``ends.find_ends``)."""
    pad_id: int
    backend: Backend = "transformers"
    masks_rows: bool = True
    """True if policy and reference rows may share a batch. If not, each side is decoded with the model's own forward
    pass."""
    own_update: bool = True
    """True if an update without dequantized weights may compute the LoRA layers with our own autograd function instead
    of peft's."""
    shadow: Shadow | None = None
    """Dequantized base weights (``use_shadow``); None: each layer dequantizes its 4-bit weights at every use."""

    template_end: int | None = None
    """The one of ``eos_ids`` that only the chat template writes; None if there is no such token."""

    start: StartWeights | None = None
    """The adapter of the reference (``starting.start_from``); None: the reference is the base model."""

    @property
    def causal(self) -> Any:
        """Return the transformers model inside, with its linear layers wrapped by peft."""
        return self.model.get_base_model()

    @property
    def decoder(self) -> Any:
        """Return the causal model without its head: token ids -> hidden states."""
        return self.causal.base_model

    @property
    def ours(self) -> bool:
        """Return whether our own functions may replace the forward pass of LoRA layers.

        Kernels that read the adapter's weights themselves, such as unsloth's, would silently bypass them.
        """
        return self.backend == "transformers"

    @property
    def patched(self) -> bool:
        """Return whether the decoder's forward pass is unsloth's.

        It takes and returns its KV cache as one tuple of keys and values per layer, and ignores the attention mask in
        training mode.
        """
        return "causal_mask" in inspect.signature(type(self.decoder).forward).parameters

    def use_shadow(self) -> None:
        """Keep dequantized weights from now on: 8 bytes per weight on the CPU (two packings), 2 bytes in 16 bits."""
        self.shadow = make_shadow(adapted_layers(self.model), self.causal.get_output_embeddings())

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute logits [..., V] from hidden states [..., H], as the model's own forward pass does."""
        head = (self.shadow and self.shadow.head) or self.causal.get_output_embeddings()
        logits: Tensor = head(hidden)
        config = self.causal.config.get_text_config()
        if scaling := getattr(config, "logits_scaling", None):  # Granite
            logits = logits / scaling
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
            logits = torch.tanh(logits / cap) * cap
        return logits

    @property
    def head_is_plain(self) -> bool:
        """Return whether logits are the product of hidden states and the head's weight, with nothing else applied."""
        head, config = self.causal.get_output_embeddings(), self.causal.config.get_text_config()
        bent = getattr(config, "logits_scaling", None) or getattr(config, "final_logit_softcapping", None)
        return type(head) is nn.Linear and head.bias is None and not bent

    def head_backward(self, gradient: Tensor) -> Tensor:
        """Return the gradient by hidden states [..., H] from the gradient by a plain head's logits [..., V]."""
        if self.shadow and self.shadow.head:
            return self.shadow.head.backward(gradient)
        weight: Tensor = self.causal.get_output_embeddings().weight
        return gradient.to(weight.dtype) @ weight

    @property
    def computes_exactly(self) -> bool:
        """Return whether the model computes in float32 or float64."""
        return torch.finfo(self.causal.dtype).bits >= 32

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """Return the trained weights by name, in a fixed order."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Make the model the frozen reference inside this context: the adapter is off, or the one that the run began
        with. No gradient flows."""
        if self.start is None:
            with self.model.disable_adapter():
                yield
            return
        weights = {layer: (layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight) for layer in self.start}
        own = {layer: (down.data, up.data) for layer, (down, up) in weights.items()}
        try:
            _put(weights, self.start)
            yield
        finally:
            _put(weights, own)

    def reference_output(self, layer: Any, inputs: Tensor) -> Tensor:
        """Compute one of peft's LoRA layers as the reference does, [..., in] -> [..., out]."""
        if self.start is None or layer not in self.start:
            output: Tensor = layer.base_layer(inputs)
        else:
            with self.as_reference():
                output = type(layer).forward(layer, inputs)
        return output

    @contextmanager
    def adapter_on_rows(self) -> Iterator[RowMask]:
        """Switch the adapter on or off for each row of a batch inside this context, as the yielded mask is set."""
        with adapter_by_row(self.model, self.shadow, self.start) as mask:
            yield mask

    @contextmanager
    def training(self) -> Iterator[None]:
        """Put the model in training mode, with the adapter on, inside this context."""
        self.model.train()
        try:
            ours = self.own_update or self.shadow is not None
            with trained_layers(self.model, self.shadow) if ours else nullcontext():
                yield
        finally:
            self.model.eval()


def _put(weights: StartWeights, values: StartWeights) -> None:
    for layer, pair in weights.items():
        for weight, value in zip(pair, values[layer], strict=True):
            weight.data = value
