"""A decoder's shape: the numbers that its memory follows from, read off its configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aapo_desk.memory.layers import Decoder, Layer


@dataclass(frozen=True)
class ModelShape:
    """A decoder's numbers. Parameters are counted without an adapter, and a tied head not twice."""

    linear: int
    """Parameters of the layers that are quantised and adapted."""
    other: int
    """All other parameters: embeddings, a head of its own, norms, biases, convolutions."""
    lora_per_rank: int
    """Parameters of an adapter of rank 1 on every linear layer."""
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
    """Numbers of a token that one layer computes in float32, on average: those that pass a norm or a recurrence."""
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    bent_head: bool = False
    """Whether something is done to the logits behind the head's product: scaled, or capped."""
    frozen: int = 0
    """Parameters of linear layers that are quantised and have no adapter: those of a vision tower."""
    targets: Mapping[str, int] = field(default_factory=dict)
    """The layers that may have an adapter, by name, and the parameters of one of rank 1 on all layers of that name."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """From a transformers configuration as a mapping; of a multimodal model, what is loaded of it.

        Raises ValueError where the model is of another family, or the configuration leaves something out.
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
        """Parameters of an adapter of rank 1 on the layers of these names; on all linear ones where none is named."""
        if not targets or not self.targets:
            return self.lora_per_rank
        names = {target.rpartition(".")[2] for target in targets}
        return sum(size for name, size in self.targets.items() if name in names)

    @property
    def queries(self) -> int:
        """Numbers of a token's queries."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Numbers of a token's keys, and of its values."""
        return self.kv_heads * self.head_dim


def _adapters(layers: Sequence[Layer]) -> dict[str, int]:
    found: dict[str, int] = {}
    for layer in layers:
        for name, (inputs, outputs) in layer.matrices.items():
            found[name] = found.get(name, 0) + inputs + outputs
    return found


def _tower(vision: Mapping[str, Any], hidden: int) -> tuple[int, int]:
    """Parameters of Gemma 3's vision tower and its way to ``hidden``: those in linear layers, all others."""

    def need(key: str) -> int:
        if vision.get(key) is None:
            raise ValueError(f"the vision tower's configuration does not say {key}")
        return int(vision[key])

    width, inner, layers = need("hidden_size"), need("intermediate_size"), need("num_hidden_layers")
    patch, channels = need("patch_size"), int(vision.get("num_channels", 3))
    linear = layers * (4 * width * width + 2 * width * inner)
    norms_and_biases = layers * (9 * width + inner) + 2 * width
    patches = width * (channels * patch * patch + 1) + width * (need("image_size") // patch) ** 2
    return linear, norms_and_biases + patches + width * hidden + width
