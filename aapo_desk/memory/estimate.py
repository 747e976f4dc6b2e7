"""Estimating a run's memory from the model's shape: pure arithmetic.

The terms in bytes, where c is the size of a number of the compute dtype (2 or 4):

    weights      0.515869 * linear (NF4 with double quantization, arXiv 2305.14314, as bitsandbytes stores it: 4 bits,
                 an 8-bit scale every 64 weights, a 32-bit one every 64 * 256) or c * linear, plus c * all others
    adapter      4 * LoRA parameters (peft keeps an adapter in float32), as much for its gradient, and 8 for the
                 optimizer (AdamW's two moments); in 16 bits also c for a copy used in matrix products
    shadow       c * linear, if dequantized weights are kept; on the CPU two packed copies of them and of the head
    rollout      max(prefill, KV cache + max(attention of one layer, sampling a token))
    update       activations kept for the backward pass + max(logits of the head, one layer being computed)

The update's peak depends only on the tokens in its micro-batch, since the head computes ``LOGITS_AT_ONCE`` logits at a
time. A forward pass without gradients, for old or reference log-probabilities, keeps no activations and needs less, so
all algorithms need the same memory. What a layer keeps per token is derived from the forward pass of transformers'
Llama, Qwen and Gemma with peft's LoRA, and from attention that never forms the score matrix. Tests compare it with what
autograd saves and torch allocates on a CPU, and the totals with published peaks of TRL's GRPOTrainer on GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass

from aapo_desk.config import RunConfig
from aapo_desk.memory.shape import ModelShape

LOGITS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 25}
"""Logits held at once by the head, in forward and in backward, by device; more would not be faster."""

NF4_BYTES = {True: 0.5 + 1 / 64 + 4 / (64 * 256), False: 0.5 + 4 / 64}
"""Bytes per weight in NF4, with and without double quantization."""

LOGIT_BYTES = 16
"""Bytes per logit while autograd computes its gradient, for any dtype: it is scaled and normalized in float32."""

PLAIN_LOGIT_BYTES = {2: 6, 4: 4, 8: 8}
"""Bytes per logit of a plain head, whose gradient has a closed form, by the bytes of a number of the compute dtype."""

DRAW_BYTES, SORTED_DRAW_BYTES = 24, 40
"""Bytes per logit while a token is sampled: without sorting, or with the logits sorted for top-k and top-p."""

LAYER_BYTES = 8
"""Bytes per number of an MLP's inner state, during the backward pass of a layer."""

PREFILL_BYTES = 16
"""Bytes per number of a token's hidden state and of its MLP's inner state, during prefill."""

SLACK = {"cpu": 1.4, "cuda": 1.2}
"""Bytes that an allocator takes for each byte requested, by device.

On GPUs 1.1 to 1.2 in published runs (reserved over allocated). glibc's allocator keeps freed memory between blocks in
use: 1.3 to 1.5 in measured updates.
"""

EVALUATED_AT_ONCE = 64
"""Maximum number of answers decoded at once in an evaluation, two per problem."""

RUNTIME_BYTES = 1 << 29
"""Bytes used before the first tensor: a CUDA context, or Python and its libraries."""

NUMBER_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


@dataclass(frozen=True)
class Settings:
    """The inputs of an estimate: how a run computes, and how much of it at once."""

    rank: int
    prompt_tokens: int
    """Tokens in the longest prompt."""
    completion_tokens: int
    """Tokens in the longest completion."""
    rows: int
    """Rows decoded at once, the policy's and the reference's together."""
    tokens: int
    """Tokens in a micro-batch of the update."""
    scored: int
    """Tokens in a micro-batch whose log-probabilities are computed."""
    longest: int
    """Tokens in the micro-batch's longest row: a prompt followed by its completions."""
    number: int = 2
    """Bytes per number of the compute dtype."""
    targets: tuple[str, ...] = ()
    """Names of the layers that have an adapter; empty: all linear layers."""
    prompts: int | None = None
    """Prompts in one prefill for the rows; one used by both policy and reference counts twice. None: one per row."""
    nf4: bool = True
    double_quantised: bool = True
    other_number: int | None = None
    """Bytes per parameter outside the linear layers. None: as ``number``."""
    shadow: bool = False
    """True if dequantized weights are kept."""
    packed: bool = False
    """True if dequantized weights and the head are packed for the CPU, once for each direction."""
    checkpointing: bool = False
    """True if the update uses gradient checkpointing: it keeps each layer's input and recomputes the rest."""
    adapter_number: int = 4
    """Bytes per parameter of the adapter, and of its gradient."""
    multiplied_number: int | None = None
    """Bytes per number of the adapter as used in matrix products. None: as ``adapter_number``."""
    optimizer_bytes: float = 8
    """Bytes of optimizer state per parameter of the adapter."""
    logits_at_once: int | None = LOGITS_AT_ONCE["cuda"]
    """Logits held at once by the head. None: those of a whole micro-batch."""
    logit_bytes: int | None = None
    """Bytes per logit. None: those of this package's own head."""
    draw_bytes: int = DRAW_BYTES

    @classmethod
    def of(cls, config: RunConfig, device_type: str, tokens: int = 1, rows: int = 1) -> Settings:
        """Return the settings that a run with this configuration has on a cpu or cuda device."""
        auto = "float32" if device_type == "cpu" else "bfloat16"
        dtype = config.model.compute_dtype
        number = NUMBER_BYTES[auto if dtype == "auto" else dtype]
        rollout = config.rollout
        asked = config.evaluation_tokens if config.evaluated_problems else 0
        return cls(
            rank=config.lora.r,
            targets=() if config.lora.targets == "all-linear" else tuple(config.lora.targets),
            prompt_tokens=config.task.max_prompt_tokens,
            completion_tokens=max(rollout.max_new_tokens, asked),
            rows=rows,
            prompts=_prompts_at_once(config, rows),
            tokens=tokens,
            scored=tokens,
            longest=min(tokens, config.task.max_prompt_tokens + rollout.group_size * rollout.max_new_tokens),
            number=number,
            nf4=config.model.quantization == "nf4",
            packed=device_type == "cpu" and number == 4,
            adapter_number=max(4, number),
            multiplied_number=None if config.lora.dropout else number,  # With dropout peft computes it in float32.
            optimizer_bytes=2 * max(4, number),
            logits_at_once=LOGITS_AT_ONCE[device_type],
            draw_bytes=SORTED_DRAW_BYTES if rollout.top_k > 0 or rollout.top_p < 1 else DRAW_BYTES,
        )


def _prompts_at_once(config: RunConfig, rows: int) -> int:
    """Return the maximum number of prompts in one prefill for this many rows.

    A group shares a prompt in a step, and two answers share one in an evaluation. Consecutive rows may touch one group
    more than they could fill.
    """

    def over(rows: int, group: int) -> int:
        return (rows - 2) // group + 2 if rows > 1 else 1

    step = min(2 * config.rollout.prompts_per_step, over(rows, config.rollout.group_size))
    asked = config.evaluated_problems
    return max(step, min(asked, over(min(rows, EVALUATED_AT_ONCE), 2)))


@dataclass(frozen=True)
class Estimate:
    """Bytes of tensors by purpose. ``rollout``, ``update`` and ``peak`` correspond to torch's max_memory_allocated."""

    weights: int
    adapter: int
    gradient: int
    """The adapter's gradient."""
    optimizer: int
    """The optimizer's state."""
    copy: int
    """The adapter's copy in the dtype of matrix products."""
    shadow: int
    """The dequantized weights."""
    cache: int
    """The KV cache and other state of the rows decoded at once, at full length."""
    prefill: int
    """The cache and the working memory during these rows' prefill."""
    attention: int
    """One layer's keys and values repeated for every head, while a token is computed."""
    drawing: int
    """Copies of these rows' logits while a token is sampled."""
    activations: int
    """Activations that the micro-batch's layers keep for the backward pass."""
    layer: int
    """Working memory of one layer in the backward pass, including what gradient checkpointing recomputes."""
    logits: int
    """The head's logits and their copies."""

    @property
    def resident(self) -> int:
        """Bytes that stay allocated in all phases."""
        return self.loaded + self.gradient + self.optimizer + self.copy

    @property
    def loaded(self) -> int:
        """Bytes allocated before the first step."""
        return self.weights + self.adapter + self.shadow

    @property
    def rollout(self) -> int:
        return self.resident + max(self.prefill, self.cache + max(self.attention, self.drawing))

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
    """Return the bytes of a run's tensors."""
    number, tokens = settings.number, settings.tokens
    prompts = settings.rows if settings.prompts is None else settings.prompts
    adapter = settings.rank * shape.adapter(settings.targets)
    length = settings.prompt_tokens + settings.completion_tokens
    # bitsandbytes dequantizes one matrix at a time.
    matrix = number * shape.hidden * shape.intermediate if settings.nf4 else 0
    kept = kept_bytes(shape, settings)
    layer = LAYER_BYTES * tokens * shape.intermediate + matrix
    logits = shape.vocab * settings.scored
    if settings.logits_at_once is not None:
        logits = min(logits, settings.logits_at_once)
    return Estimate(
        weights=_weights(shape, settings),
        adapter=settings.adapter_number * adapter,
        gradient=settings.adapter_number * adapter,
        optimizer=int(settings.optimizer_bytes * adapter),
        copy=_copied(settings) * adapter,
        shadow=_shadow(shape, settings) if settings.shadow else 0,
        cache=settings.rows * _cache(shape, number, length),
        # The cache for the tokens to come is allocated at prefill.
        prefill=prompts * _cache(shape, number, length)
        + PREFILL_BYTES * prompts * settings.prompt_tokens * (shape.hidden + shape.intermediate)
        + matrix,
        attention=2 * number * settings.rows * shape.queries * length if shape.heads > shape.kv_heads else 0,
        drawing=settings.draw_bytes * settings.rows * shape.vocab,
        activations=tokens * shape.layers * (number * shape.hidden if settings.checkpointing else kept),
        layer=layer + (tokens * kept if settings.checkpointing else 0),
        logits=_logit_bytes(shape, settings) * logits,
    )


def _copied(settings: Settings) -> int:
    """Return the bytes per number of the adapter for a copy in another dtype; 0 if there is none."""
    multiplied = settings.multiplied_number or settings.adapter_number
    return multiplied if multiplied != settings.adapter_number else 0


def _logit_bytes(shape: ModelShape, settings: Settings) -> int:
    if settings.logit_bytes is not None:
        return settings.logit_bytes
    return LOGIT_BYTES if shape.bent_head else PLAIN_LOGIT_BYTES[settings.number]


def kept_bytes(shape: ModelShape, settings: Settings) -> int:
    """Return the bytes that one layer keeps per token for the backward pass."""
    number, inner = settings.number, shape.intermediate
    # Norms are computed in float32.
    norms = 4 * shape.normalised
    # Queries, keys and values repeated for every head, the result, a row of the mask.
    attention = number * (4 * shape.queries + settings.longest)
    activation = number * 3 * inner
    # Inputs of the seven adapted layers. They are shared among these, and with attention, unless each makes its own
    # cast.
    if (settings.multiplied_number or settings.adapter_number) == number:
        inputs = number * (2 * shape.hidden + inner)
    else:
        inputs = settings.adapter_number * (5 * shape.hidden + shape.queries + inner)
    return norms + attention + activation + inputs


def _weights(shape: ModelShape, settings: Settings) -> int:
    linear = NF4_BYTES[settings.double_quantised] if settings.nf4 else settings.number
    other = settings.number if settings.other_number is None else settings.other_number
    return int(linear * (shape.linear + shape.frozen)) + other * shape.other


def _shadow(shape: ModelShape, settings: Settings) -> int:
    if settings.packed:
        return 2 * settings.number * (shape.linear + shape.vocab * shape.hidden)
    return settings.number * shape.linear if settings.nf4 else 0


def _cache(shape: ModelShape, number: int, length: int) -> int:
    """Return the bytes of one row's cache."""
    tokens = shape.full_layers * length + shape.sliding_layers * min(length, shape.window)
    return 2 * number * shape.keys * tokens + shape.fixed_state


def required(tensors: int, device_type: str) -> int:
    """Return the free memory that a cpu or cuda device must have for this many bytes of tensors."""
    return int(SLACK[device_type] * tensors) + RUNTIME_BYTES


def loaded(shape: ModelShape, config: RunConfig, device_type: str) -> int:
    """Return the part of the required memory that a loaded model with a new adapter uses."""
    return required(estimate(shape, Settings.of(config, device_type)).loaded, device_type)
