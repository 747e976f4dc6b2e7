"""The policy: one base model in memory with a LoRA adapter; the reference is the same model with the adapter off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Policy:
    """A loaded model with its adapter, and what sampling from it needs to know."""

    model: Any
    """The PeftModel."""
    tokenizer: Any
    device: torch.device
    eos_ids: tuple[int, ...]
    pad_id: int

    @property
    def causal(self) -> Any:
        """The transformers model inside, its linear layers wrapped by peft."""
        return self.model.get_base_model()

    @property
    def decoder(self) -> Any:
        """The causal model without its head: token ids -> hidden states."""
        return self.causal.base_model

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., H] -> logits [..., V], as the model's own forward makes them."""
        logits: Tensor = self.causal.get_output_embeddings()(hidden)
        config = self.causal.config.get_text_config()
        if scaling := getattr(config, "logits_scaling", None):  # Granite
            logits = logits / scaling
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
            logits = torch.tanh(logits / cap) * cap
        return logits

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """The trained weights by name, in a fixed order."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Inside, the adapter is off: the frozen base speaks."""
        with self.model.disable_adapter():
            yield

    @contextmanager
    def adapter_on_rows(self) -> Iterator[RowMask]:
        """Inside, each row of a batch has the adapter on or off, as the mask yielded here is set.

        The adapter's contribution to a row is multiplied by 1 or 0 behind ``lora_B``, which gives the very numbers of
        the adapter switched off.
        """
        mask = RowMask()
        layers = [module.lora_B["default"] for module in self.model.modules() if hasattr(module, "lora_B")]
        hooks = [layer.register_forward_hook(mask.apply) for layer in layers if isinstance(layer, nn.Module)]
        try:
            yield mask
        finally:
            for hook in hooks:
                hook.remove()


class RowMask:
    """Which rows of the batch have the adapter on."""

    def __init__(self) -> None:
        self._factor: Tensor | None = None

    def set(self, rows: Tensor) -> None:
        """``rows`` [B] bool. All on costs nothing."""
        self._factor = None if bool(rows.all()) else rows.reshape(-1, 1, 1)

    def apply(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output if self._factor is None else output * self._factor.to(output.dtype)
