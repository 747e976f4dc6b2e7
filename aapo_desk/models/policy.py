"""The policy: one base model in memory with a LoRA adapter; the reference is the same model with the adapter off.

Of a run that began from an existing adapter the reference is the base with that one, frozen as it was.
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
"""What loaded a model, and whose layers compute it."""


@dataclass
class Policy:
    """A loaded model with its adapter, and what sampling from it needs to know."""

    model: Any
    """The PeftModel."""
    tokenizer: Any
    device: torch.device
    eos_ids: tuple[int, ...]
    """Every token that ends a completion (``ends.find_ends``)."""
    pad_id: int
    backend: Backend = "transformers"
    masks_rows: bool = True
    """Whether policy and reference rows may share a batch; else each side is decoded with the model's own forward."""
    own_update: bool = True
    """Whether an update without shadow weights may compute the adapted layers by our own function; else peft does."""
    shadow: Shadow | None = None
    """Base weights at hand (``use_shadow``); None: they are made of their 4 bits at each use."""

    template_end: int | None = None
    """The one of ``eos_ids`` that only the chat template writes; None if there is no such token."""

    start: StartWeights | None = None
    """What the reference has on (``starting.start_from``); None: nothing, it is the base."""

    @property
    def causal(self) -> Any:
        """The transformers model inside, its linear layers wrapped by peft."""
        return self.model.get_base_model()

    @property
    def decoder(self) -> Any:
        """The causal model without its head: token ids -> hidden states."""
        return self.causal.base_model

    @property
    def ours(self) -> bool:
        """Whether functions of ours may stand in for the adapted layers' forward: kernels that read the adapter's
        weights themselves, as unsloth's do, would pass them by without a word."""
        return self.backend == "transformers"

    @property
    def patched(self) -> bool:
        """Whether the decoder's forward is unsloth's: it takes and gives its cache as a tuple of keys and values a
        layer, and looks at no mask in train mode."""
        return "causal_mask" in inspect.signature(type(self.decoder).forward).parameters

    def use_shadow(self) -> None:
        """Keep shadow weights from now on. On the CPU they take 8 bytes a weight (two packings), in 16 bits 2."""
        self.shadow = make_shadow(adapted_layers(self.model), self.causal.get_output_embeddings())

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., H] -> logits [..., V], as the model's own forward makes them."""
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
        """Whether logits are hidden states times the head's weight and nothing else."""
        head, config = self.causal.get_output_embeddings(), self.causal.config.get_text_config()
        bent = getattr(config, "logits_scaling", None) or getattr(config, "final_logit_softcapping", None)
        return type(head) is nn.Linear and head.bias is None and not bent

    def head_backward(self, gradient: Tensor) -> Tensor:
        """What a gradient [..., V] of a plain head's logits is for the hidden states [..., H]."""
        if self.shadow and self.shadow.head:
            return self.shadow.head.backward(gradient)
        weight: Tensor = self.causal.get_output_embeddings().weight
        return gradient.to(weight.dtype) @ weight

    @property
    def computes_exactly(self) -> bool:
        """Whether the model computes in float32 or better."""
        return torch.finfo(self.causal.dtype).bits >= 32

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """The trained weights by name, in a fixed order."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Inside, the adapter is off, or as the run began with it: the frozen reference speaks. No gradient flows."""
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
        """One of peft's adapted layers as the reference computes it: [..., in] -> [..., out]."""
        if self.start is None or layer not in self.start:
            output: Tensor = layer.base_layer(inputs)
        else:
            with self.as_reference():
                output = type(layer).forward(layer, inputs)
        return output

    @contextmanager
    def adapter_on_rows(self) -> Iterator[RowMask]:
        """Inside, each row of a batch has the adapter on or off, as the mask yielded here is set."""
        with adapter_by_row(self.model, self.shadow, self.start) as mask:
            yield mask

    @contextmanager
    def training(self) -> Iterator[None]:
        """Inside, the model is in training mode, the adapter on."""
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
