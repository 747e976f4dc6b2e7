"""A decoder's layers as derived from its configuration: their matrices by name, other parameters, and state.

Names and numbers are those of transformers' classes. A test compares them with models that transformers builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["full", "sliding", "delta", "convolution"]


@dataclass(frozen=True)
class Layer:
    """One layer of a decoder."""

    matrices: Mapping[str, tuple[int, int]]
    """Its linear layers: name to (input size, output size). They are quantized, and may have an adapter."""
    vectors: int
    """The number of parameters in its norms, biases and convolutions."""
    precise: int
    """Numbers per token that it computes in float32."""
    kind: Kind
    """The kind of memory of earlier tokens: all of them, those in a window, or a state of fixed size."""
    state: int = 0
    """Bytes of the fixed-size state of one sequence."""


@dataclass(frozen=True)
class Family:
    """Facts about a model family's layers that its configuration does not contain."""

    norms: int = 2
    """The number of norms over the hidden state."""
    head_norms: bool = False
    """True if queries and keys are normalized."""
    input_biases: bool = False
    """True if the projections of queries, keys and values have biases."""
    gated_queries: bool = False
    """True if the query projection also computes a gate for the attention's output."""
    attention: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Names of the attention's matrices; two if queries, keys and values share one."""
    mlp: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    """Names of the MLP's matrices; two if the first two are merged."""
    usual: Mapping[str, Any] = field(default_factory=dict)
    """transformers' default values for keys that a configuration may omit."""


FAMILIES = {
    "llama": Family(usual={"tie_word_embeddings": False}),
    "qwen2": Family(input_biases=True, usual={"tie_word_embeddings": False}),
    "qwen3": Family(head_norms=True, usual={"tie_word_embeddings": False, "head_dim": 128}),
    "smollm3": Family(usual={"tie_word_embeddings": True}),
    "gemma3_text": Family(
        norms=4,
        head_norms=True,
        usual={
            "tie_word_embeddings": True,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "vocab_size": 262208,
            "sliding_window_pattern": 6,
        },
    ),
    "phi3": Family(
        attention=("qkv_proj", "o_proj"), mlp=("gate_up_proj", "down_proj"), usual={"tie_word_embeddings": False}
    ),
    "granitemoehybrid": Family(mlp=("input_linear", "output_linear"), usual={"tie_word_embeddings": False}),
    "qwen3_5_text": Family(
        head_norms=True,
        gated_queries=True,
        usual={
            "tie_word_embeddings": False,
            "head_dim": 256,
            "full_attention_interval": 4,
            "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 32,
        },
    ),
    "lfm2": Family(
        head_norms=True,
        attention=("q_proj", "k_proj", "v_proj", "out_proj"),
        mlp=("w1", "w3", "w2"),
        usual={
            "tie_word_embeddings": True,
            "conv_L_cache": 3,
            "block_auto_adjust_ff_dim": True,
            "block_ffn_dim_multiplier": 1.0,
            "block_multiple_of": 256,
        },
    ),
}
"""Decoders whose parameters can be counted from their configuration, by ``model_type``."""

KINDS: dict[str, Kind] = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "sliding",
    "linear_attention": "delta",
    "conv": "convolution",
}
"""The kind of layer for each of transformers' names in ``layer_types``."""


class Decoder:
    """The sizes of a decoder and its layers."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Read a transformers configuration; for a multimodal model, its text part (``text_config``).

        Raises ValueError if the family is not supported or the configuration lacks a value.
        """
        text: Mapping[str, Any] = config.get("text_config") or config
        self.model_type = str(text.get("model_type"))
        if self.model_type not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise ValueError(f"cannot estimate the memory of a {self.model_type} model; supported are {known}")
        self.family = FAMILIES[self.model_type]
        outer = {key: config[key] for key in ("tie_word_embeddings",) if key in config}
        self._said = {**self.family.usual, **outer, **text}
        self.hidden, self.heads, self.vocab = (
            self.need(key) for key in ("hidden_size", "num_attention_heads", "vocab_size")
        )
        self.inner = self._inner()
        self.kv_heads = int(self.get("num_key_value_heads") or self.heads)
        self.head_dim = int(self.get("head_dim") or self.hidden // self.heads)
        self.tied = bool(self.need("tie_word_embeddings"))
        kinds = self._kinds(self.need("num_hidden_layers"))
        self.window = self.need("sliding_window") if "sliding" in kinds else 0
        self.layers = [self._layer(kind) for kind in kinds]

    def get(self, key: str) -> Any:
        return self._said.get(key)

    def need(self, key: str) -> int:
        if self.get(key) is None:
            raise ValueError(f"the {self.model_type} model's configuration lacks {key}")
        return int(self.get(key))

    def _inner(self) -> int:
        """Return the inner size of an MLP."""
        if self.model_type == "granitemoehybrid":
            if self.get("num_local_experts") != 0:
                raise ValueError("cannot estimate the memory of a Granite model with experts")
            return self.need("shared_intermediate_size")
        if self.model_type != "lfm2":
            return self.need("intermediate_size")
        inner = int(self.get("block_ff_dim") or self.need("intermediate_size"))
        if not self.get("block_auto_adjust_ff_dim"):
            return inner
        inner, several = int(2 * inner / 3), self.need("block_multiple_of")
        return -(-int(self.get("block_ffn_dim_multiplier") * inner) // several) * several

    def _kinds(self, layers: int) -> list[Kind]:
        types = self.get("layer_types") or self.get("layers_block_type") or self._usual_types(layers)
        try:
            kinds = [KINDS[name] for name in types]
        except KeyError as error:
            raise ValueError(f"cannot estimate the memory of {self.model_type} layers of type {error}") from None
        if "delta" in kinds and self.model_type != "qwen3_5_text":
            raise ValueError(f"cannot estimate the memory of a {self.model_type} model with recurrent layers")
        return kinds

    def _usual_types(self, layers: int) -> list[str]:
        """Return the layer types that transformers assumes for a configuration without a list of types."""
        every: int | None = self.get("sliding_window_pattern") or self.get("full_attention_interval")
        if every:
            other = "sliding_attention" if self.get("sliding_window_pattern") else "linear_attention"
            return ["full_attention" if (layer + 1) % every == 0 else other for layer in range(layers)]
        if self.get("full_attn_idxs") is not None:
            return ["full_attention" if layer in self.get("full_attn_idxs") else "conv" for layer in range(layers)]
        if self.get("use_sliding_window") or self.model_type in ("lfm2", "granitemoehybrid"):
            raise ValueError(f"the {self.model_type} model's configuration lacks layer_types")
        slides = self.model_type == "phi3" and self.get("sliding_window")
        return ["sliding_attention" if slides else "full_attention"] * layers

    def _layer(self, kind: Kind) -> Layer:
        match kind:
            case "delta":
                mixer = self._delta()
            case "convolution":
                mixer = self._convolution()
            case _:
                mixer = self._attention(kind)
        norms = self.family.norms * self.hidden
        biases = 2 * self.inner + self.hidden if self.get("mlp_bias") else 0
        return Layer(
            matrices={**mixer.matrices, **self._mlp()},
            vectors=mixer.vectors + norms + biases,
            precise=mixer.precise + norms,
            kind=kind,
            state=mixer.state,
        )

    def _mlp(self) -> dict[str, tuple[int, int]]:
        *up, down = self.family.mlp
        width = 2 * self.inner // len(up)
        return dict.fromkeys(up, (self.hidden, width)) | {down: (self.inner, self.hidden)}

    def _attention(self, kind: Kind) -> Layer:
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        made = 2 * queries if self.family.gated_queries else queries
        *inputs, output = self.family.attention
        widths = [made, keys, keys] if len(inputs) == 3 else [made + 2 * keys]
        biases = made + 2 * keys if self.family.input_biases or self.get("attention_bias") else 0
        biases += self.hidden if self.get("attention_bias") else 0
        return Layer(
            matrices={name: (self.hidden, width) for name, width in zip(inputs, widths, strict=True)}
            | {output: (queries, self.hidden)},
            vectors=biases + (2 * self.head_dim if self.family.head_norms else 0),
            precise=queries + keys if self.family.head_norms else 0,
            kind=kind,
        )

    def _delta(self) -> Layer:
        """Return a gated delta rule layer (arXiv 2412.06464): a short convolution, then one state matrix per head.

        The count of float32 numbers is that of transformers' own implementation, from what autograd saves: copies of
        keys, queries and values at each stage, five matrices per chunk of 64 tokens, and the state of each chunk. The
        package flash-linear-attention saves far less.
        """
        heads, size = self.need("linear_num_value_heads"), self.need("linear_value_head_dim")
        key_size = self.need("linear_key_head_dim")
        values, keys = heads * size, self.need("linear_num_key_heads") * key_size
        convolved, kernel = 2 * keys + values, self.need("linear_conv_kernel_dim")
        return Layer(
            matrices={
                "in_proj_qkv": (self.hidden, convolved),
                "in_proj_z": (self.hidden, values),
                "in_proj_b": (self.hidden, heads),
                "in_proj_a": (self.hidden, heads),
                "out_proj": (values, self.hidden),
            },
            vectors=convolved * kernel + 2 * heads + size,
            precise=8 * heads * key_size + 9 * values + 2 * keys + 5 * heads * 64 + heads * key_size * size // 64,
            kind="delta",
            state=4 * heads * key_size * size + 2 * convolved * kernel,
        )

    def _convolution(self) -> Layer:
        """Return LFM2's gated convolution over a few tokens."""
        kernel = self.need("conv_L_cache")
        biases = 5 * self.hidden if self.get("conv_bias") else 0
        return Layer(
            matrices={"in_proj": (self.hidden, 3 * self.hidden), "out_proj": (self.hidden, self.hidden)},
            vectors=self.hidden * kernel + biases,
            precise=0,
            kind="convolution",
            state=2 * self.hidden * kernel,
        )
