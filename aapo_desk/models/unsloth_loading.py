"""Loading through unsloth's ``FastLanguageModel``: the same quantisation, the same adapter from the same seed.

unsloth is in the process by now (``models.unsloth.bring_in``). On a GPU its own kernels compute the layers; on a CPU
they are those of transformers and peft.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from aapo_desk.config import LoraConfig, ModelConfig
from aapo_desk.models import unsloth
from aapo_desk.models.shadow import is_four_bit
from aapo_desk.models.sources import ResolvedModel, load_config
from aapo_desk.models.unsloth import UnslothError


def load_adapted(
    model: ModelConfig,
    lora: LoraConfig,
    resolved: ResolvedModel,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    exclude: Callable[[Any], str | None],
) -> Any:
    """The PeftModel with a fresh adapter whose A follows from ``seed``, as from peft itself.

    ``exclude`` gives the pattern of the layers that get no adapter, from the base. Raises UnslothError where it cannot
    be loaded, or was loaded otherwise than asked for.
    """
    from unsloth import FastLanguageModel

    longest = _longest(model, resolved)
    if dtype == torch.float64:
        raise UnslothError("does not compute in float64", imported=True)
    try:
        with unsloth.muted():
            base, _ = FastLanguageModel.from_pretrained(
                resolved.path,
                max_seq_length=longest,
                dtype=dtype,
                load_in_4bit=model.quantization == "nf4",
                device_map={"": device},
                trust_remote_code=model.trust_remote_code,
                use_safetensors=True,  # never a pickle
                use_exact_model_name=True,  # not a quantised copy of its own from the hub
                use_gradient_checkpointing=False,  # the run decides that later
                offload_embedding=False,
                fix_tokenizer=False,  # ours is used
            )
            base.name_or_path = resolved.name  # what an adapter says it belongs to: no place in this machine's cache
            adapted = FastLanguageModel.get_peft_model(
                base,
                r=lora.r,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=lora.targets,
                exclude_modules=exclude(base),
                bias="none",
                random_state=seed,
                use_gradient_checkpointing=False,
                max_seq_length=longest,
                temporary_location=str(unsloth.folder() / "buffers"),
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise UnslothError(f"cannot load {resolved.name}: {unsloth.first_line(error)}", imported=True) from error
    adapted.peft_config["default"].revision = resolved.revision
    _check(adapted, model, device, dtype)
    return adapted


def _longest(model: ModelConfig, resolved: ResolvedModel) -> int:
    """Tokens in a text. Longer ones it would cut off; with more than the model's own it would stretch the positions."""
    config = load_config(resolved, model.trust_remote_code).get_text_config()
    longest: int | None = getattr(config, "max_position_embeddings", None)
    if longest is None:
        raise UnslothError(f"has to be told how long texts may be, which {resolved.name} does not say", imported=True)
    return longest


def _check(adapted: Any, model: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
    """unsloth loads in its own way where it cannot as asked, and only prints that. Raises UnslothError."""
    causal = adapted.get_base_model()
    quantization = "nf4" if any(map(is_four_bit, causal.modules())) else "none"
    found = (causal.device.type, quantization, str(causal.dtype).removeprefix("torch."))
    wanted = (device.type, model.quantization, str(dtype).removeprefix("torch."))
    if found != wanted:
        raise UnslothError(f"loads {', '.join(found)} where {', '.join(wanted)} was asked for", imported=True)
