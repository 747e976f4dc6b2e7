"""Load a model through unsloth's ``FastLanguageModel``, with the same quantisation and the same adapter for a seed.

unsloth must have been imported (``models.unsloth.bring_in``). On a GPU its own kernels compute the layers, on a CPU
those of transformers and peft.
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
    """Load the PeftModel with a fresh adapter, whose A is determined by ``seed`` as in peft itself.

    ``exclude`` returns, given the base model, the pattern of the layers that get no adapter. Raises UnslothError if the
    model cannot be loaded, or was loaded with other settings than requested.
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
                use_exact_model_name=True,  # not unsloth's own quantised copy from the hub
                use_gradient_checkpointing=False,  # the run decides that later
                offload_embedding=False,
                fix_tokenizer=False,  # we load the tokenizer ourselves
            )
            base.name_or_path = resolved.name  # an adapter records this as its base model
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
    """Return the model's context length, the maximum sequence length for unsloth.

    unsloth truncates longer texts; given more than the model's context length, it would rescale the positions. Raises
    UnslothError if the model's configuration does not contain it.
    """
    config = load_config(resolved, model.trust_remote_code).get_text_config()
    longest: int | None = getattr(config, "max_position_embeddings", None)
    if longest is None:
        raise UnslothError(
            f"needs the maximum sequence length, which the configuration of {resolved.name} does not contain",
            imported=True,
        )
    return longest


def _check(adapted: Any, model: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
    """Check that the model was loaded as requested. Raises UnslothError if not.

    If unsloth cannot load a model as requested, it loads it with other settings and only prints that.
    """
    causal = adapted.get_base_model()
    quantization = "nf4" if any(map(is_four_bit, causal.modules())) else "none"
    found = (causal.device.type, quantization, str(causal.dtype).removeprefix("torch."))
    wanted = (device.type, model.quantization, str(dtype).removeprefix("torch."))
    if found != wanted:
        raise UnslothError(f"loaded {', '.join(found)}, but {', '.join(wanted)} was requested", imported=True)
