"""Load a model for QLoRA: NF4 with double quantisation through bitsandbytes, LoRA through peft."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from aapo_desk.config import ConfigError, LoraConfig, ModelConfig, Problem
from aapo_desk.hardware import BFLOAT16_FROM
from aapo_desk.models.ends import find_ends
from aapo_desk.models.importing import import_peft
from aapo_desk.models.policy import Backend, Policy
from aapo_desk.models.precision import overflowing, refusal
from aapo_desk.models.sources import (
    ModelError,
    ResolvedModel,
    explain_load_failure,
    load_config,
    load_tokenizer,
    quiet,
)

log = logging.getLogger(__name__)


def choose_device(wanted: str) -> torch.device:
    """Raises ModelError where a GPU is demanded and there is none."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError("model.device is cuda, but torch sees no CUDA GPU; try --set model.device=cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and (current := torch.cuda.current_device()):  # this process was given one of several
        return torch.device("cuda", current)
    return torch.device(wanted)


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """What the device does well: on a GPU bfloat16 from compute capability 8.0, else float16; on the CPU float32."""
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    if device.type == "cpu":
        return torch.float32
    # Not torch.cuda.is_bf16_supported: it says yes where bfloat16 is emulated, many times slower.
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= BFLOAT16_FROM else torch.float16


def check_dtype(model: ModelConfig, config: Any, device: torch.device) -> None:
    """Refuse a model that would compute in float16 and cannot. ``config`` is its transformers configuration.

    Raises ConfigError naming the family and what to do.
    """
    family = overflowing(config)
    if family and choose_dtype(model.compute_dtype, device) == torch.float16:
        raise refusal(model, family, torch.cuda.get_device_capability(device) if device.type == "cuda" else None)


def load_policy(
    model: ModelConfig, lora: LoraConfig, resolved: ResolvedModel, seed: int, backend: Backend = "transformers"
) -> Policy:
    """The model with a fresh adapter, which changes nothing yet (its B is zero). The adapter's A follows from ``seed``.

    Raises ModelError where the model cannot be loaded and ConfigError where it has no such layers to adapt; with
    unsloth UnslothError.
    """
    device = choose_device(model.device)
    dtype = choose_dtype(model.compute_dtype, device)
    if backend == "unsloth":
        adapted = _by_unsloth(model, lora, resolved, seed, device, dtype)
    else:
        adapted = _by_transformers(model, lora, resolved, seed, device, dtype)
    adapted.eval()
    tokenizer = load_tokenizer(resolved, model.trust_remote_code)
    log.info("loaded %s on %s in %s, %s, by %s", resolved.name, device, dtype, model.quantization, backend)
    return make_policy(adapted, tokenizer, device, model, backend)


def make_policy(
    adapted: Any, tokenizer: Any, device: torch.device, model: ModelConfig, backend: Backend = "transformers"
) -> Policy:
    """The policy of a PeftModel and its tokenizer. Raises ModelError if no token would end a completion."""
    base = adapted.get_base_model()
    ends = find_ends(base.generation_config, base.config, tokenizer, model.chat_template_options)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends.ids[0]
    return Policy(adapted, tokenizer, device, ends.ids, pad, backend, template_end=ends.template)


def _by_unsloth(
    model: ModelConfig, lora: LoraConfig, resolved: ResolvedModel, seed: int, device: torch.device, dtype: torch.dtype
) -> Any:
    from aapo_desk.models.unsloth_loading import load_adapted

    quiet()
    if dtype == torch.float16:
        check_dtype(model, load_config(resolved, model.trust_remote_code), device)
    adapted = load_adapted(model, lora, resolved, seed, device, dtype, _outside_the_text)
    base = adapted.get_base_model()
    _keep_weights_trainable(base)
    _leave_the_file(base)
    return adapted


def _by_transformers(
    model: ModelConfig, lora: LoraConfig, resolved: ResolvedModel, seed: int, device: torch.device, dtype: torch.dtype
) -> Any:
    import_peft()
    from peft import LoraConfig as PeftLoraConfig
    from peft import TaskType, get_peft_model

    base = load_base(model, resolved, device, dtype)
    base.requires_grad_(False)
    settings = PeftLoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        exclude_modules=_outside_the_text(base),
        task_type=TaskType.CAUSAL_LM,
        base_model_name_or_path=resolved.name,
        revision=resolved.revision,
    )
    torch.manual_seed(seed)
    try:
        adapted = get_peft_model(base, settings)
    except ValueError as error:
        raise ConfigError(Problem("lora.targets", str(error).splitlines()[0], lora.targets)) from error
    if dtype == torch.float64:
        for parameter in adapted.parameters():
            parameter.data = parameter.data.double() if parameter.requires_grad else parameter.data
    return adapted


def _outside_the_text(base: Any) -> str | None:
    """Which modules of a multimodal model an adapter must not touch: all but its text part. A pattern of names."""
    if base.config.get_text_config() is base.config:
        return None
    decoder = base.get_decoder()
    name = next(name for name, module in base.named_modules() if module is decoder)
    return rf"(?!{re.escape(name)}\.).*"


def load_base(model: ModelConfig, resolved: ResolvedModel, device: torch.device, dtype: torch.dtype) -> Any:
    """The transformers model, quantised as configured.

    Raises ModelError where it cannot be loaded, and ConfigError before anything of it is where it would compute in
    float16 and cannot.
    """
    import_peft()
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quiet()
    if dtype == torch.float16:
        check_dtype(model, load_config(resolved, model.trust_remote_code), device)
    quantization = None
    if model.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    try:
        with _one_weight_at_a_time():
            base = AutoModelForCausalLM.from_pretrained(
                resolved.path,
                use_safetensors=True,  # never a pickle
                dtype=dtype,
                quantization_config=quantization,
                device_map={"": device},
                trust_remote_code=model.trust_remote_code,
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(explain_load_failure(resolved, error)) from error
    base.name_or_path = resolved.name  # what an adapter says it belongs to: no place in this machine's cache
    _keep_weights_trainable(base)
    return base


@contextmanager
def _one_weight_at_a_time() -> Iterator[None]:
    """Inside, transformers reads weights one by one instead of mapping their file.

    What is read of a mapped file stays in memory until all is loaded: 4 bytes a weight where 4 bits are wanted.
    """
    from safetensors import safe_open
    from transformers import modeling_utils

    library: Any = modeling_utils  # it chooses how by the platform and takes no wish

    def plainly(*place: Any, **how: Any) -> Any:
        return safe_open(*place, **how | {"backend": "pread"})

    library.safe_open = plainly
    try:
        yield
    finally:
        library.safe_open = safe_open


def _keep_weights_trainable(base: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit weights at the first forward without gradient.

    On processors with AVX512-BF16 it does so for inference: from then on the layer computes in bfloat16 and has no
    backward, so that an update after a rollout would silently get a wrong gradient.
    """
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _leave_the_file(base: Any) -> None:
    """Move the weights that are still pages of the mapped file into memory of their own.

    One that stays keeps the whole file mapped, and with it what was read only to be quantised: 4 bytes a weight.
    """
    for parameter in base.parameters():
        if parameter.device.type == "cpu" and parameter.is_floating_point():
            parameter.data = parameter.data.clone()
