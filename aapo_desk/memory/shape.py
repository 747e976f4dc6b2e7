"""A decoder's shape: the numbers that its memory depends on, derived from its configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aapo_desk.memory.layers import Decoder, Layer


@dataclass(frozen=True)
class ModelShape:
    """A decoder's sizes. Parameter counts exclude adapters, and count a tied head once."""

    linear: int
    """Parameters of the layers that are quantized and adapted."""
    other: int
    """All other parameters: embeddings, an untied head, norms, biases, convolutions."""
    lora_per_rank: int
    """Parameters of an adapter of rank 1 on all linear layers."""
    layers: int
    full_layers: int
    """Layers that cache every token."""
    sliding_layers: int
    """Layers that cache the last ``window`` tokens."""
    window: int
    fixed_state: int
    """Bytes of a sequence's state in layers that cache no tokens."""
    hidden: int
    normalised: int
    """Numbers per token that a layer computes in float32, on average: those in a norm or a recurrence."""
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    bent_head: bool = False
    """True if the logits are scaled or capped after the head's matrix product."""
    frozen: int = 0
    """Parameters of linear layers that are quantized and have no adapter: those of a vision tower."""
    targets: Mapping[str, int] = field(default_factory=dict)
    """Parameters of a rank-1 adapter on all layers of a name, for each name of layers that may have an adapter."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """Return the shape for a transformers configuration; for a multimodal model, of the parts that are loaded.

        Raises ValueError if the family is not supported or the configuration lacks a value.
        """
        text = Decoder(config)
        layers = text.layers
        matrices = [matrix for layer in layers for matrix in layer.matrices.values()]
        kinds = [layer.kind for layer in layers]
        tables = text.vocab * text.hidden * (1 if text.tied else 2)
        tower = _tower(config["vision_config"], text.hidden) if config.get("model_type") == "gemma3" else (0, 0)
        return cls(
            linear=sum(inputs * outputs for inputs, outputs in matrices),
            other=tables + sum(layer.vectors for layer in layers) + text.hidden + tower[1],
            lora_per_rank=sum(inputs + outputs for inputs, outputs in matrices),
            layers=len(layers),
            full_layers=kinds.count("full"),
            sliding_layers=kinds.count("sliding"),
            window=text.window,
            fixed_state=sum(layer.state for layer in layers),
            hidden=text.hidden,
            normalised=sum(layer.precise for layer in layers) // len(layers),
            intermediate=text.inner,
            heads=text.heads,
            kv_heads=text.kv_heads,
            head_dim=text.head_dim,
            vocab=text.vocab,
            bent_head=any(text.get(key) for key in ("logits_scaling", "final_logit_softcapping")),
            frozen=tower[0],
            targets=_adapters(layers),
        )

    def adapter(self, targets: Collection[str]) -> int:
        """Return the parameters of a rank-1 adapter on layers with these names; no names mean all linear layers."""
        if not targets or not self.targets:
            return self.lora_per_rank
        names = {target.rpartition(".")[2] for target in targets}
        return sum(size for name, size in self.targets.items() if name in names)

    @property
    def queries(self) -> int:
        """The size of a token's queries, over all heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """The size of a token's keys, and of its values, over all heads."""
        return self.kv_heads * self.head_dim


def _adapters(layers: Sequence[Layer]) -> dict[str, int]:
    found: dict[str, int] = {}
    for layer in layers:
        for name, (inputs, outputs) in layer.matrices.items():
            found[name] = found.get(name, 0) + inputs + outputs
    return found


def _tower(vision: Mapping[str, Any], hidden: int) -> tuple[int, int]:
    """Return the parameters of Gemma 3's vision tower with its projection to ``hidden``: (in linear layers, others)."""

    def need(key: str) -> int:
        if vision.get(key) is None:
            raise ValueError(f"the vision tower's configuration lacks {key}")
        return int(vision[key])

    width, inner, layers = need("hidden_size"), need("intermediate_size"), need("num_hidden_layers")
    patch, channels = need("patch_size"), int(vision.get("num_channels", 3))
    linear = layers * (4 * width * width + 2 * width * inner)
    norms_and_biases = layers * (9 * width + inner) + 2 * width
    patches = width * (channels * patch * patch + 1) + width * (need("image_size") // patch) ** 2
    return linear, norms_and_biases + patches + width * hidden + width
