"""Start a policy from an existing adapter. Its reference is the base model with that adapter, frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from aapo_desk.config import ConfigError, Problem
from aapo_desk.models.policy import Policy
from aapo_desk.models.rows import ADAPTER, adapted_layers
from aapo_desk.models.tensors import damage

SETTING = "lora.start_from"


def start_from(policy: Policy, folder: Path) -> None:
    """Load the adapter from a folder in peft's layout into the policy, and keep a copy of it for the reference.

    The policy must have a fresh adapter of the same rank, scale and layers. Raises ConfigError if the adapter in the
    folder does not match; the message names the first difference.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    if any(not isinstance(layer.base_layer, nn.Linear) for layer in adapted_layers(policy.model)):
        raise _refusal(
            "supports adapters on linear layers only, and lora.targets includes other layers of this model", folder
        )
    file = folder / "adapter_model.safetensors"
    try:
        loaded = load_file(file)
    except (OSError, SafetensorError) as error:
        raise _refusal(damage(file) or f"cannot be read: {error}", folder) from error
    own: dict[str, Any] = get_peft_model_state_dict(policy.model, save_embedding_layers=False)
    for name in sorted(own.keys() ^ loaded.keys()):
        who = "the run has it and the adapter does not" if name in own else "the adapter has it and the run does not"
        message = (
            f"has other layers than lora.targets gives this model ({name}: {who}); set lora.targets to match the "
            "adapter's"
        )
        raise _refusal(message, folder)
    for name, value in own.items():
        if value.shape != loaded[name].shape:
            shapes = f"{list(loaded[name].shape)}, but this model needs {list(value.shape)}"
            raise _refusal(f"belongs to another model: {name} has shape {shapes}", folder)
    set_peft_model_state_dict(policy.model, loaded)
    policy.start = {
        layer: (layer.lora_A[ADAPTER].weight.detach().clone(), layer.lora_B[ADAPTER].weight.detach().clone())
        for layer in adapted_layers(policy.model)
    }


def _refusal(message: str, folder: Path) -> ConfigError:
    return ConfigError(Problem(SETTING, message, str(folder)))
