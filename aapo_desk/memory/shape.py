"""A decoder's shape: the numbers that its memory follows from, read off its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """What a model's configuration does not say: norms over the hidden state and of queries and keys, fixed biases."""

    norms: int = 2
    head_norms: bool = False
    input_biases: bool = False


FAMILIES = {
    "llama": Family(),
    "qwen2": Family(input_biases=True),
    "qwen3": Family(head_norms=True),
    "gemma3_text": Family(norms=4, head_norms=True),
}
"""Dense decoders whose parameters can be counted from their configuration, by ``model_type``."""


@dataclass(frozen=True)
class ModelShape:
    """A decoder's numbers. Parameters are counted without an adapter, and a tied head not twice."""

    linear: int
    """Parameters of the layers that are quantised and adapted."""
    other: int
    """All other parameters: embeddings, a head of its own, norms, biases."""
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
    """Numbers of a token that pass a norm in one layer."""
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """From a transformers configuration as a mapping; of a multimodal model its text part (``text_config``) alone.

        Raises ValueError where the model is of another family, or the configuration leaves something out.
        """
        text: Mapping[str, Any] = config.get("text_config") or config
        kind = str(text.get("model_type"))
        if kind not in FAMILIES:
            raise ValueError(f"the memory of a {kind} model is not known; known are {', '.join(FAMILIES)}")

        def need(key: str) -> int:
            if text.get(key) is None:
                raise ValueError(f"the {kind} model's configuration does not say {key}")
            return int(text[key])

        family = FAMILIES[kind]
        layers, hidden, inner = need("num_hidden_layers"), need("hidden_size"), need("intermediate_size")
        heads, vocab = need("num_attention_heads"), need("vocab_size")
        kv_heads = int(text.get("num_key_value_heads") or heads)
        head_dim = int(text.get("head_dim") or hidden // heads)
        queries, keys = heads * head_dim, kv_heads * head_dim
        sliding = _sliding_layers(text, kind, layers)
        biases = queries + 2 * keys if family.input_biases or text.get("attention_bias") else 0
        biases += hidden if text.get("attention_bias") else 0
        biases += 2 * inner + hidden if text.get("mlp_bias") else 0
        norms = family.norms * hidden + (2 * head_dim if family.head_norms else 0)
        tables = 1 if need("tie_word_embeddings") else 2
        return cls(
            linear=layers * hidden * (2 * queries + 2 * keys + 3 * inner),
            other=tables * vocab * hidden + layers * (norms + biases) + hidden,
            lora_per_rank=layers * (7 * hidden + 2 * queries + 2 * keys + 3 * inner),
            layers=layers,
            full_layers=layers - sliding,
            sliding_layers=sliding,
            window=need("sliding_window") if sliding else 0,
            fixed_state=0,
            hidden=hidden,
            normalised=family.norms * hidden + (queries + keys if family.head_norms else 0),
            intermediate=inner,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            vocab=vocab,
        )

    @property
    def queries(self) -> int:
        """Numbers of a token's queries."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Numbers of a token's keys, and of its values."""
        return self.kv_heads * self.head_dim


def _sliding_layers(text: Mapping[str, Any], kind: str, layers: int) -> int:
    if text.get("layer_types"):
        return sum(layer == "sliding_attention" for layer in text["layer_types"])
    if kind == "gemma3_text" or text.get("use_sliding_window"):
        raise ValueError(f"the {kind} model's configuration does not say layer_types")
    return 0
