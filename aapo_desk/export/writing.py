"""Write an adapter, or a model with its adapter merged in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aapo_desk.checkpoint import Checkpoint
from aapo_desk.config import ModelConfig
from aapo_desk.export.request import ExportError
from aapo_desk.models.policy import Policy
from aapo_desk.models.rows import ADAPTER, adapted_layers
from aapo_desk.models.sources import ResolvedModel, identity

SETTINGS = "adapter_config.json"
SIXTEEN_BITS = (torch.bfloat16, torch.float16)
SENTENCEPIECE = "tokenizer.model"


def write_adapter(checkpoint: Checkpoint, model: ModelConfig, resolved: ResolvedModel, folder: Path) -> None:
    """Write the checkpoint's adapter in PEFT format. Its base is named by hub id and commit, so that others find it."""
    for name in ("adapter_model.safetensors", SETTINGS):
        shutil.copyfile(checkpoint.adapter / name, folder / name)
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    settings |= {"base_model_name_or_path": resolved.name, "revision": revision(model, resolved)}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def revision(model: ModelConfig, resolved: ResolvedModel) -> str | None:
    """Return the hub commit of the base, as far as the local cache knows it; None for a model in a local folder."""
    known = identity(model, resolved)
    return known.get("commit") or resolved.revision


def saved_dtype(resolved: ResolvedModel, trust_remote_code: bool) -> torch.dtype:
    """Return the 16-bit type to save a merged model in: the published one, else float16, which rounds the least."""
    from transformers import AutoConfig

    published = AutoConfig.from_pretrained(resolved.path, trust_remote_code=trust_remote_code)
    dtype = getattr(published.get_text_config(), "dtype", None) or getattr(published, "dtype", None)
    return dtype if dtype in SIXTEEN_BITS else torch.float16


@torch.no_grad()
def merge(policy: Policy, dtype: torch.dtype) -> Any:
    """Merge the adapter into its base, in place, and return the plain model in ``dtype``.

    The policy cannot be used afterwards, and its base must not be quantized. Each sum is computed in float32 and
    rounded once. The generation settings also name the chat template's end-of-turn token, so that other tools stop
    where the run did. Raises ExportError if a weight is not finite in ``dtype``.
    """
    embeddings = policy.causal.get_input_embeddings()
    for layer in adapted_layers(policy.model):
        base = layer.base_layer
        if base.weight is embeddings.weight:
            _untie(policy.causal, base)
        delta = layer.get_delta_weight(ADAPTER)
        # A float32 weight stays in float32 until the whole model is rounded.
        kept = torch.float32 if base.weight.dtype == torch.float32 else dtype
        base.weight.data = (base.weight.float() + delta.float()).to(kept)
    merged = policy.model.unload().to(dtype)
    for name, parameter in merged.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ExportError(f"the weights {name} are not finite in {str(dtype).removeprefix('torch.')}")
    if policy.template_end is not None:
        merged.generation_config.eos_token_id = list(policy.eos_ids)
    return merged


def _untie(causal: Any, head: Any) -> None:
    """Give the model a separate head if it shares the embeddings, because the adapter must not change these."""
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    for config in {id(found): found for found in (causal.config, causal.config.get_text_config())}.values():
        config.tie_word_embeddings = False


def save_merged(model: Any, tokenizer: Any, resolved: ResolvedModel, folder: Path) -> None:
    """Save the weights (safetensors), configuration, generation settings, tokenizer and chat template."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if path := _sentencepiece(resolved):
        shutil.copyfile(path, folder / SENTENCEPIECE)  # some formats are converted from it, but transformers omits it


def _sentencepiece(resolved: ResolvedModel) -> Path | None:
    path = Path(resolved.path, SENTENCEPIECE)
    return path if path.is_file() else None
