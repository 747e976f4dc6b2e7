"""How much memory a run takes: pure arithmetic over a model's shape.

Bytes, with c those of a number of the compute dtype (2 or 4):

    weights      0.515869 * linear (NF4 and double quantisation, arXiv 2305.14314, as bitsandbytes stores it: 4 bits, an
                 8-bit scale every 64 weights, a 32-bit one every 64 * 256) or c * linear, and c * all others
    adapter      4 * LoRA parameters (peft keeps an adapter in float32), as much for its gradient, and 8 for the
                 optimiser: AdamW's two moments; in 16 bits, c for a copy that products are made with
    shadow       c * linear, where the weights are kept dequantised; on the CPU two packings of these and of the head
    rollout      max(prompts being read, cache of keys and values + max(attention of one layer, drawing a token))
    update       activations kept for the backward pass + max(logits of the head, one layer being computed)

The update's peak follows the tokens of its micro-batch and nothing else, since the head computes ``LOGITS_AT_ONCE``
logits at a time. A pass without a gradient, for old or reference log-probs, keeps nothing of a layer and takes less, so
no algorithm needs more than another. What a layer keeps of a token is read off the forward pass of transformers' Llama,
Qwen and Gemma with peft's LoRA, and attention that forms no matrix. Tests hold it against what autograd saves and torch
allocates on a CPU, and the totals against published peaks of TRL's GRPOTrainer on GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass

from aapo_desk.config import RunConfig
from aapo_desk.memory.shape import ModelShape

LOGITS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 25}
"""Logits held at once by the head, in forward and in backward, by device: beyond them no time is saved."""

NF4_BYTES = {True: 0.5 + 1 / 64 + 4 / (64 * 256), False: 0.5 + 4 / 64}
"""Of a weight in NF4, with double quantisation and without."""

LOGIT_BYTES = 16
"""Of a logit while autograd makes its gradient, whatever the dtype: it is scaled and normalised in float32."""

PLAIN_LOGIT_BYTES = {2: 6, 4: 4, 8: 8}
"""Of a logit of a plain head, whose gradient is made in closed form, by the bytes of a number that it computes with."""

DRAW_BYTES, SORTED_DRAW_BYTES = 24, 40
"""Of a logit while a token is drawn: plainly, or with the logits sorted for top-k and top-p."""

LAYER_BYTES = 8
"""Of each number between the two halves of an MLP, while a layer goes backward."""

PREFILL_BYTES = 16
"""Of each number of a token's hidden state and of its MLP's middle, while a prompt is read."""

SLACK = {"cpu": 1.4, "cuda": 1.2}
"""What an allocator takes for one byte that is asked of it, by device.

On GPUs 1.1 to 1.2 in published runs (reserved over allocated). glibc's keeps what is freed between blocks in use:
1.3 to 1.5 in measured updates.
"""

EVALUATED_AT_ONCE = 64
"""Answers decoded at once in an evaluation, at the most: two of each problem."""

RUNTIME_BYTES = 1 << 29
"""What is taken before the first tensor: a CUDA context, or Python and its libraries."""

NUMBER_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


@dataclass(frozen=True)
class Settings:
    """How a run computes, and how much of it at once."""

    rank: int
    prompt_tokens: int
    """Of the longest prompt."""
    completion_tokens: int
    """Of the longest completion."""
    rows: int
    """Decoded at once, the policy's and the reference's together."""
    tokens: int
    """In a micro-batch of the update."""
    scored: int
    """Of these, the ones whose log-probs are computed."""
    longest: int
    """Tokens of the micro-batch's longest row: a prompt with the completions behind it."""
    number: int = 2
    """Bytes of a number of the compute dtype."""
    targets: tuple[str, ...] = ()
    """Names of the layers that have an adapter; none: all linear layers."""
    prompts: int | None = None
    """Read at once for the rows; one that policy and reference read counts twice. None: one for each row."""
    nf4: bool = True
    double_quantised: bool = True
    other_number: int | None = None
    """Bytes of a parameter outside the linear layers. None: as ``number``."""
    shadow: bool = False
    packed: bool = False
    """Whether a shadow is packed for the processor, once for each direction, the head with it."""
    checkpointing: bool = False
    """Whether the update keeps only each layer's input and computes the rest again."""
    adapter_number: int = 4
    """Bytes of an adapter's parameter, and of its gradient."""
    multiplied_number: int | None = None
    """Bytes of an adapter's number as products are made with it. None: as ``adapter_number``."""
    optimizer_bytes: float = 8
    """Of the optimiser's state for each of them."""
    logits_at_once: int | None = LOGITS_AT_ONCE["cuda"]
    """None: those of a micro-batch."""
    logit_bytes: int | None = None
    """None: what our own head takes."""
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
            multiplied_number=None if config.lora.dropout else number,  # with dropout peft computes it, in float32
            optimizer_bytes=2 * max(4, number),
            logits_at_once=LOGITS_AT_ONCE[device_type],
            draw_bytes=SORTED_DRAW_BYTES if rollout.top_k > 0 or rollout.top_p < 1 else DRAW_BYTES,
        )


def _prompts_at_once(config: RunConfig, rows: int) -> int:
    """The most prompts that are read for so many rows: in a step a group shares one, in an evaluation two answers do.

    Rows that lie side by side in groups reach over one group more than they would fill.
    """

    def over(rows: int, group: int) -> int:
        return (rows - 2) // group + 2 if rows > 1 else 1

    step = min(2 * config.rollout.prompts_per_step, over(rows, config.rollout.group_size))
    asked = config.evaluated_problems
    return max(step, min(asked, over(min(rows, EVALUATED_AT_ONCE), 2)))


@dataclass(frozen=True)
class Estimate:
    """Bytes of tensors by what they are for. ``rollout``, ``update`` and ``peak`` compare with max_memory_allocated."""

    weights: int
    adapter: int
    gradient: int
    """The adapter's."""
    optimizer: int
    """The optimiser's state."""
    copy: int
    """The adapter in the dtype that products are made in."""
    shadow: int
    cache: int
    """Keys, values and other state of the rows decoded at once, at full length."""
    prefill: int
    """The cache and the working memory while these rows' prompts are read."""
    attention: int
    """One layer's keys and values repeated for every head, while a token is computed."""
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
        return self.loaded + self.gradient + self.optimizer + self.copy

    @property
    def loaded(self) -> int:
        """What is there before the first step."""
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
    """The tensors of a run."""
    number, tokens = settings.number, settings.tokens
    prompts = settings.rows if settings.prompts is None else settings.prompts
    adapter = settings.rank * shape.adapter(settings.targets)
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
        adapter=settings.adapter_number * adapter,
        gradient=settings.adapter_number * adapter,
        optimizer=int(settings.optimizer_bytes * adapter),
        copy=_copied(settings) * adapter,
        shadow=_shadow(shape, settings) if settings.shadow else 0,
        cache=settings.rows * _cache(shape, number, length),
        # Room for the tokens to come is taken when a prompt is read.
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
    """Bytes of each adapter's number that are taken by a copy in another dtype."""
    multiplied = settings.multiplied_number or settings.adapter_number
    return multiplied if multiplied != settings.adapter_number else 0


def _logit_bytes(shape: ModelShape, settings: Settings) -> int:
    if settings.logit_bytes is not None:
        return settings.logit_bytes
    return LOGIT_BYTES if shape.bent_head else PLAIN_LOGIT_BYTES[settings.number]


def kept_bytes(shape: ModelShape, settings: Settings) -> int:
    """What one layer keeps of a token for the backward pass, in bytes."""
    number, inner = settings.number, shape.intermediate
    # Norms compute in float32.
    norms = 4 * shape.normalised
    # Queries, keys and values repeated for every head, the result, a row of the mask.
    attention = number * (4 * shape.queries + settings.longest)
    activation = number * 3 * inner
    # Inputs of the seven adapted layers: shared between them, and with attention, unless each casts its own copy.
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
    """Bytes of one row's cache."""
    tokens = shape.full_layers * length + shape.sliding_layers * min(length, shape.window)
    return 2 * number * shape.keys * tokens + shape.fixed_state


def required(tensors: int, device_type: str) -> int:
    """The memory that a cpu or cuda device must have free for so many bytes of tensors."""
    return int(SLACK[device_type] * tensors) + RUNTIME_BYTES


def loaded(shape: ModelShape, config: RunConfig, device_type: str) -> int:
    """The part of the required memory that a loaded model with a fresh adapter has taken."""
    return required(estimate(shape, Settings.of(config, device_type)).loaded, device_type)
