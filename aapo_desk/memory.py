"""How much memory a run takes, and how much it may compute at once: pure arithmetic over a model's shape.

Bytes, with c those of a number of the compute dtype (2 or 4):

    weights      0.515869 * linear (NF4 and double quantisation, arXiv 2305.14314, as bitsandbytes stores it: 4 bits, an
                 8-bit scale every 64 weights, a 32-bit one every 64 * 256) or c * linear, and c * all others
    adapter      16 * LoRA parameters: weight, gradient and AdamW's two moments (peft keeps an adapter in float32)
    shadow       c * linear, where the weights are kept dequantised; on the CPU two packings of these and of the head
    rollout      max(prompts being read, cache of keys and values + drawing from the logits)
    update       activations kept for the backward pass + max(logits of the head, one layer being computed)

The update's peak follows the tokens of its micro-batch and nothing else, since the head computes ``LOGITS_AT_ONCE``
logits at a time. What a layer keeps of a token is read off the forward pass of transformers' Llama, Qwen and Gemma with
peft's LoRA, and attention that forms no matrix. Tests hold it against what autograd saves and torch allocates on a CPU,
and the totals against published peaks of TRL's GRPOTrainer on GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aapo_desk.config import RunConfig

LOGITS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 25}
"""Logits held at once by the head, in forward and in backward, by device: beyond them no time is saved."""

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Of a weight in NF4 with double quantisation."""

LOGIT_BYTES = 16
"""Of a logit while its gradient is made, whatever the dtype: it is scaled and normalised in float32."""

DRAW_BYTES, SORTED_DRAW_BYTES = 24, 40
"""Of a logit while a token is drawn: plainly, or with the logits sorted for top-k and top-p."""

LAYER_BYTES = 8
"""Of each number between the two halves of an MLP, while a layer goes backward."""

PREFILL_BYTES = 16
"""Of each number of a token's hidden state and of its MLP's middle, while a prompt is read."""

SLACK = 1.2
"""What an allocator takes over what is asked of it. 1.1 to 1.2 in published runs (reserved over allocated)."""

RUNTIME_BYTES = 1 << 29
"""What is taken before the first tensor: a CUDA context, or Python and its libraries."""

MOST_TOKENS = {"cpu": 512, "cuda": 8192}
"""Tokens in a micro-batch beyond which no time is saved, by device."""

ENOUGH_TOKENS = 1024
"""Tokens in a micro-batch from which little time is saved: a faster rollout is the better use of memory then."""

MOST_ROWS = 256
"""Rows decoded at once, at the most."""

NUMBER_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


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


@dataclass(frozen=True)
class Settings:
    """How a run computes, and how much of it at once."""

    rank: int
    prompt_tokens: int
    """Of the longest prompt."""
    completion_tokens: int
    """Of the longest completion."""
    rows: int
    """Decoded at once, the policy's and the reference's together. Each may have a prompt of its own."""
    tokens: int
    """In a micro-batch of the update."""
    scored: int
    """Of these, the ones whose log-probs are computed."""
    longest: int
    """Tokens of the micro-batch's longest row: a prompt with the completions behind it."""
    number: int = 2
    """Bytes of a number of the compute dtype."""
    nf4: bool = True
    shadow: bool = False
    packed: bool = False
    """Whether a shadow is packed for the processor, once for each direction, the head with it."""
    checkpointing: bool = False
    """Whether the update keeps only each layer's input and computes the rest again."""
    adapter_number: int = 4
    adapter_bytes: float = 16
    """Of an adapter's parameter, with its gradient and the optimiser's state."""
    logits_at_once: int | None = LOGITS_AT_ONCE["cuda"]
    """None: those of a micro-batch."""
    logit_bytes: int = LOGIT_BYTES
    draw_bytes: int = DRAW_BYTES

    @classmethod
    def of(cls, config: RunConfig, device_type: str, tokens: int = 1, rows: int = 1) -> Settings:
        """What this product does under a configuration on a cpu or cuda device."""
        auto = "float32" if device_type == "cpu" else "bfloat16"
        dtype = config.model.compute_dtype
        number = NUMBER_BYTES[auto if dtype == "auto" else dtype]
        rollout = config.rollout
        asked = config.evaluation_tokens if config.evaluated_problems else 0
        return cls(
            rank=config.lora.r,
            prompt_tokens=config.task.max_prompt_tokens,
            completion_tokens=max(rollout.max_new_tokens, asked),
            rows=rows,
            tokens=tokens,
            scored=tokens,
            longest=min(tokens, config.task.max_prompt_tokens + rollout.group_size * rollout.max_new_tokens),
            number=number,
            nf4=config.model.quantization == "nf4",
            packed=device_type == "cpu" and number == 4,
            adapter_number=max(4, number),
            adapter_bytes=4 * max(4, number),
            logits_at_once=LOGITS_AT_ONCE[device_type],
            draw_bytes=SORTED_DRAW_BYTES if rollout.top_k > 0 or rollout.top_p < 1 else DRAW_BYTES,
        )


@dataclass(frozen=True)
class Estimate:
    """Bytes of tensors by what they are for. ``rollout``, ``update`` and ``peak`` compare with max_memory_allocated."""

    weights: int
    adapter: int
    """With gradients and the optimiser's state."""
    shadow: int
    cache: int
    """Keys, values and other state of the rows decoded at once, at full length."""
    prefill: int
    """The cache and the working memory while these rows' prompts are read."""
    drawing: int
    """Copies of these rows' logits while a token is drawn."""
    activations: int
    """What the micro-batch's layers keep for the backward pass."""
    layer: int
    """Working memory of one layer in the backward pass; with checkpointing also what it computes again."""
    logits: int
    """The head's logits and their copies."""

    @property
    def resident(self) -> int:
        """What stays from phase to phase."""
        return self.weights + self.adapter + self.shadow

    @property
    def rollout(self) -> int:
        return self.resident + max(self.prefill, self.cache + self.drawing)

    @property
    def update(self) -> int:
        return self.resident + self.activations + max(self.logits, self.layer)

    @property
    def peak(self) -> int:
        return max(self.rollout, self.update)

    @property
    def peak_phase(self) -> str:
        return "rollout" if self.rollout > self.update else "update"


def estimate(shape: ModelShape, settings: Settings) -> Estimate:
    """The tensors of a run."""
    number, tokens = settings.number, settings.tokens
    prompts = settings.rows * settings.prompt_tokens
    length = settings.prompt_tokens + settings.completion_tokens
    # bitsandbytes dequantises one matrix at a time.
    matrix = number * shape.hidden * shape.intermediate if settings.nf4 else 0
    kept = kept_bytes(shape, settings)
    layer = LAYER_BYTES * tokens * shape.intermediate + matrix
    logits = shape.vocab * settings.scored
    if settings.logits_at_once is not None:
        logits = min(logits, settings.logits_at_once)
    return Estimate(
        weights=_weights(shape, settings),
        adapter=int(settings.adapter_bytes * settings.rank * shape.lora_per_rank),
        shadow=_shadow(shape, settings) if settings.shadow else 0,
        cache=settings.rows * _cache(shape, number, length),
        prefill=settings.rows * _cache(shape, number, settings.prompt_tokens)
        + PREFILL_BYTES * prompts * (shape.hidden + shape.intermediate)
        + matrix,
        drawing=settings.draw_bytes * settings.rows * shape.vocab,
        activations=tokens * shape.layers * (number * shape.hidden if settings.checkpointing else kept),
        layer=layer + (tokens * kept if settings.checkpointing else 0),
        logits=settings.logit_bytes * logits,
    )


def kept_bytes(shape: ModelShape, settings: Settings) -> int:
    """What one layer keeps of a token for the backward pass, in bytes."""
    number, inner = settings.number, shape.intermediate
    # Norms compute in float32.
    norms = 4 * shape.normalised
    # Queries, keys and values repeated for every head, the result, a row of the mask.
    attention = number * (4 * shape.queries + settings.longest)
    activation = number * 3 * inner
    # Inputs of the seven adapted layers: shared between them, and with attention, unless each casts its own copy.
    if settings.adapter_number == number:
        inputs = number * (2 * shape.hidden + inner)
    else:
        inputs = settings.adapter_number * (5 * shape.hidden + shape.queries + inner)
    return norms + attention + activation + inputs


def _weights(shape: ModelShape, settings: Settings) -> int:
    linear = NF4_BYTES if settings.nf4 else settings.number
    return int(linear * shape.linear) + settings.number * shape.other


def _shadow(shape: ModelShape, settings: Settings) -> int:
    if settings.packed:
        return 2 * settings.number * (shape.linear + shape.vocab * shape.hidden)
    return settings.number * shape.linear if settings.nf4 else 0


def _cache(shape: ModelShape, number: int, length: int) -> int:
    """Bytes of one row's cache."""
    tokens = shape.full_layers * length + shape.sliding_layers * min(length, shape.window)
    return 2 * number * shape.keys * tokens + shape.fixed_state


def required(tensors: int) -> int:
    """The memory that a device must have free for so many bytes of tensors."""
    return int(SLACK * tensors) + RUNTIME_BYTES


def loaded(shape: ModelShape, config: RunConfig, device_type: str) -> int:
    """The part of the required memory that a loaded model with a fresh adapter has taken."""
    settings = Settings.of(config, device_type)
    return required(_weights(shape, settings) + settings.adapter_number * settings.rank * shape.lora_per_rank)


@dataclass(frozen=True)
class Plan:
    """How much a run computes at once on a device, and which savings it needs or can afford."""

    token_budget: int
    """Tokens in a micro-batch of the update."""
    batch_rows: int
    """Rows decoded at once."""
    gradient_checkpointing: bool
    """Where even the longest row would not fit without it."""
    shadow_weights: bool
    """Whether the weights are kept dequantised: as configured, or where they fit beside everything else."""


def plan(shape: ModelShape, config: RunConfig, free_bytes: int, device_type: str) -> Plan:
    """The largest batches that fit into ``free_bytes``, at least one row each, on a cpu or cuda device.

    ``free_bytes`` is what the whole run may take, before anything is loaded; once the model is, add ``loaded``.
    """

    def update_fits(tokens: int, shadow: bool = False, checkpointing: bool = False) -> bool:
        settings = Settings.of(config, device_type, tokens=tokens)
        settings = replace(settings, shadow=shadow, checkpointing=checkpointing)
        return required(estimate(shape, settings).update) <= free_bytes

    def rollout_fits(rows: int, shadow: bool = False) -> bool:
        settings = replace(Settings.of(config, device_type, rows=rows), shadow=shadow)
        return required(estimate(shape, settings).rollout) <= free_bytes

    longest = config.task.max_prompt_tokens + config.rollout.max_new_tokens
    step_rows = config.rollout.prompts_per_step * config.rollout.group_size
    enough = max(longest, min(ENOUGH_TOKENS, step_rows * longest))
    shadow = config.rollout.weights == "shadow" or (
        config.rollout.weights == "auto"
        and update_fits(enough, shadow=True)
        and rollout_fits(min(2 * step_rows, MOST_ROWS), shadow=True)
    )
    checkpointing = not update_fits(longest, shadow)
    return Plan(
        token_budget=_largest(lambda tokens: update_fits(tokens, shadow, checkpointing), MOST_TOKENS[device_type]),
        batch_rows=_largest(lambda rows: rollout_fits(rows, shadow), MOST_ROWS),
        gradient_checkpointing=checkpointing,
        shadow_weights=shadow,
    )


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number from 1 to ``most`` that fits, where a larger one never fits better; 1 where none does."""
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
