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
    """Return the device for ``model.device``. Raises ModelError if it is ``cuda`` and there is no CUDA GPU."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError("model.device is cuda, but torch finds no CUDA GPU; use the CPU with --set model.device=cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and (current := torch.cuda.current_device()):  # this process was assigned one of several GPUs
        return torch.device("cuda", current)
    return torch.device(wanted)


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """Return the compute dtype; ``auto`` is bfloat16 on a GPU from compute capability 8.0, float16 on an older GPU,
    float32 on the CPU."""
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    if device.type == "cpu":
        return torch.float32
    # torch.cuda.is_bf16_supported does not serve: it also returns True if bfloat16 is emulated, many times slower.
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= BFLOAT16_FROM else torch.float16


def check_dtype(model: ModelConfig, config: Any, device: torch.device) -> None:
    """Refuse a model that would compute in float16 although its family overflows it.

    ``config`` is the model's transformers configuration. Raises ConfigError that names the family and what to do.
    """
    family = overflowing(config)
    if family and choose_dtype(model.compute_dtype, device) == torch.float16:
        raise refusal(model, family, torch.cuda.get_device_capability(device) if device.type == "cuda" else None)


def load_policy(
    model: ModelConfig, lora: LoraConfig, resolved: ResolvedModel, seed: int, backend: Backend = "transformers"
) -> Policy:
    """Load the model with a fresh adapter, which has no effect yet (its B is zero). ``seed`` determines its A.

    Raises ModelError if the model cannot be loaded, ConfigError if it does not have the layers that ``lora.targets``
    names, and with unsloth UnslothError.
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
    """Make the policy from a PeftModel and its tokenizer. Raises ModelError if no token would end a completion."""
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
    """Return a pattern of the module names in a multimodal model that get no adapter: all but those of the text part.

    None if the model is not multimodal.
    """
    if base.config.get_text_config() is base.config:
        return None
    decoder = base.get_decoder()
    name = next(name for name, module in base.named_modules() if module is decoder)
    return rf"(?!{re.escape(name)}\.).*"


def load_base(model: ModelConfig, resolved: ResolvedModel, device: torch.device, dtype: torch.dtype) -> Any:
    """Load the transformers model, quantised as configured.

    Raises ModelError if it cannot be loaded. Raises ConfigError, before any weights are read, if it would compute in
    float16 although its family overflows it.
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
    base.name_or_path = (
        resolved.name
    )  # an adapter records this name as its base model; the path in this machine's cache would be useless
    _keep_weights_trainable(base)
    return base


@contextmanager
def _one_weight_at_a_time() -> Iterator[None]:
    """Make transformers read weights one by one inside this context, instead of memory-mapping their file.

    The pages read from a mapped file stay in memory until the whole model is loaded: 4 bytes per weight, although only
    4 bits are needed.
    """
    from safetensors import safe_open
    from transformers import modeling_utils

    library: Any = modeling_utils  # it chooses the backend by platform and has no option for it

    def plainly(*place: Any, **how: Any) -> Any:
        return safe_open(*place, **how | {"backend": "pread"})

    library.safe_open = plainly
    try:
        yield
    finally:
        library.safe_open = safe_open


def _keep_weights_trainable(base: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit weights at the first forward pass without gradient.

    On processors with AVX512-BF16 it repacks them for inference. From then on the layer computes in bfloat16 and has no
    backward pass, so that an update after a rollout would silently get a wrong gradient.
    """
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _leave_the_file(base: Any) -> None:
    """Copy the weights that are still pages of the memory-mapped file into memory of their own.

    A single remaining one keeps the whole file mapped, including the pages that were read only to be quantised: 4 bytes
    per weight.
    """
    for parameter in base.parameters():
        if parameter.device.type == "cpu" and parameter.is_floating_point():
            parameter.data = parameter.data.clone()
