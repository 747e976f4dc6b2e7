"""The steps of one export: prepare it, write it, and verify what was written."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aapo_desk.checkpoint import ADAPTER, Checkpoint, CheckpointError, checkpoint_name, refuse_broken
from aapo_desk.export.distance import (
    BOUNDS,
    PROBED_TOKENS,
    QUANT_BOUNDS,
    Bound,
    Distance,
    Probe,
    answer_logits,
    distance,
)
from aapo_desk.export.folders import Files, Places, damaged_files, describe_files, free_bytes
from aapo_desk.export.llama import Tools, ends_of, what_is_lost
from aapo_desk.export.llama import asked as asked_llama
from aapo_desk.export.loading import (
    Base,
    Loaded,
    asked,
    find_base,
    greedy_tokens,
    load_exported_adapter,
    load_exported_model,
    load_trained,
    load_tuned,
)
from aapo_desk.export.questions import Questions, questions
from aapo_desk.export.request import ExportError, Request
from aapo_desk.export.usage import model_name
from aapo_desk.export.writing import merge, save_merged, saved_dtype, write_adapter
from aapo_desk.models.policy import Policy

Progress = Callable[[str], None]
TUNED = "the unquantized base plus adapter"


@dataclass(frozen=True)
class Proof:
    """One comparison. Without a bound it is reported but has no effect on the verdict."""

    what: str
    against: str
    distance: Distance
    bound: Bound | None

    def as_json(self) -> dict[str, Any]:
        bound = self.bound and self.bound.as_json()
        return {"what": self.what, "against": self.against, "distance": self.distance.as_json(), "bound": bound}


@dataclass
class Verdict:
    """The result of loading an export again. ``broken``: what is wrong, in words; empty if the export is correct."""

    proofs: list[Proof] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Notes for the user of the export."""
    loaded: Loaded | None = None

    def hold(self, what: str, against: str, expected: Tensor, found: Tensor, bound: Bound | None) -> None:
        """Compare two logits [N, V] and record the result."""
        try:
            off = distance(expected, found)
        except ValueError as error:
            self.broken.append(str(error))
            return
        self.proofs.append(Proof(what, against, off, bound))
        self.broken += bound.breaches(off, against) if bound else []


@dataclass
class Work:
    """An export in progress, and the data that it is compared with."""

    request: Request
    places: Places
    base: Base
    tools: Tools | None
    checkpoint: Checkpoint
    """A copy of the run's checkpoint, which the run may delete during the export."""
    tokenizer: Any
    eos_ids: tuple[int, ...]
    template_end: int | None
    """See ``Policy.template_end``."""
    questions: Questions
    probe: Probe
    progress: Progress
    files: Files = field(default_factory=dict)
    """The files that were written, with checksums."""
    dtype: str | None = None
    """The data type of a merged model's weights."""

    @property
    def named_ends(self) -> tuple[int, ...]:
        """The end-of-sequence tokens that the model or its tokenizer names, or all of them if these name none."""
        return tuple(token for token in self.eos_ids if token != self.template_end) or self.eos_ids

    @property
    def gguf(self) -> Path:
        name = model_name(self.request.source.run.name, self.request.quant)
        return self.places.aside / f"{name}.gguf"

    @property
    def f16(self) -> Path:
        """The f16 GGUF file that a quantized one is made from."""
        return self.gguf if self.request.quant == "f16" else self.places.scratch / "f16.gguf"


def prepare(request: Request, places: Places, progress: Progress) -> tuple[Work, Policy]:
    """Fetch what the export needs, load the base plus adapter and let it answer the prompts of the probe.

    Returns the loaded policy too. Raises ExportError, ModelError, CheckpointError and ConfigError.
    """
    source = request.source
    checkpoint = _copied(source.run.checkpoints, source.step, places.scratch)
    tools = Tools.have(progress, request.offline) if request.form == "gguf" else None
    base = find_base(source.config, request.offline, progress)
    progress("loading the unquantized base plus adapter")
    policy = load_tuned(base, checkpoint)
    asked_of = questions(source.config, policy.tokenizer)
    prompts = list(asked_of.probed)
    answers = [tokens for tokens, _ in greedy_tokens(policy, prompts, PROBED_TOKENS)]
    probe = Probe(prompts, answers, answer_logits(policy, prompts, answers))
    if not bool(torch.isfinite(probe.logits).all()):
        raise ExportError(f"{TUNED} computes non-finite numbers, so this checkpoint cannot be used; choose another")
    tokenizer, eos, end = policy.tokenizer, policy.eos_ids, policy.template_end
    return Work(request, places, base, tools, checkpoint, tokenizer, eos, end, asked_of, probe, progress), policy


def _copied(folder: Path, step: int, scratch: Path) -> Checkpoint:
    """Check the checkpoint and copy its adapter to the scratch folder. Raises CheckpointError."""
    found = Checkpoint(folder / checkpoint_name(step), step)
    found.read_asked_state()
    refuse_broken(found)
    copy = Checkpoint(scratch / "checkpoint", step)
    try:
        shutil.copytree(found.adapter, copy.path / ADAPTER)
    except OSError as error:
        raise CheckpointError(f"{found.path} cannot be read: {error}") from error
    return copy


def write(work: Work, policy: Policy) -> None:
    """Write the export to its temporary folder. A merge makes the policy unusable. Raises ExportError."""
    work.progress(f"writing the {work.request.label}")
    weights = sum(value.numel() for value in policy.causal.parameters())
    _check_disk(work, weights)
    if work.request.form == "adapter":
        write_adapter(work.checkpoint, work.base.config.model, work.base.resolved, work.places.aside)
    elif work.request.form == "merged":
        dtype = saved_dtype(work.base.resolved, work.base.model.trust_remote_code)
        work.dtype = str(dtype).removeprefix("torch.")
        save_merged(merge(policy, dtype), work.tokenizer, work.base.resolved, work.places.aside)
    else:
        _write_gguf(work, policy)
    work.files = describe_files(work.places.aside)


def _write_gguf(work: Work, policy: Policy) -> None:
    assert work.tools is not None
    model = work.places.scratch / "merged"
    save_merged(merge(policy, torch.float16), work.tokenizer, work.base.resolved, model)
    work.progress("converting it with llama.cpp's converter")
    work.tools.convert(model, work.f16)
    shutil.rmtree(model)
    if work.f16 != work.gguf:
        work.progress(f"quantizing it to {work.request.quant}")
        work.tools.quantise(work.f16, work.gguf, work.request.quant)


def _check_disk(work: Work, weights: int) -> None:
    """Check the free disk space before anything is written. Raises ExportError."""
    size = {"adapter": 0, "merged": 2 * weights, "gguf": 4 * weights}[work.request.form]
    if work.request.form == "gguf" and work.request.quant != "f16":
        size += weights  # at most 8 bits per weight
    size += sum(path.stat().st_size for path in work.checkpoint.adapter.iterdir()) + (8 << 20)
    free = free_bytes(work.places.aside)
    if size > free:
        raise ExportError(
            f"the disk of {work.request.to.parent} has {free / 2**30:.1f} GiB free, but the export needs "
            f"{size / 2**30:.1f} GiB; free some space, or export to another disk"
        )


def verify(work: Work) -> Verdict:
    """Load the written export again and compare it with the model it was made from.

    The verdict lists what is damaged, cannot be loaded or exceeds its limits. Raises ModelError if the base itself can
    no longer be loaded.
    """
    work.progress("loading it again")
    verdict = Verdict(broken=damaged_files(work.places.aside, work.files))
    if verdict.broken:
        return verdict
    try:
        {"adapter": _verify_adapter, "merged": _verify_merged, "gguf": _verify_gguf}[work.request.form](work, verdict)
    except ExportError as error:
        verdict.broken.append(str(error))
    return verdict


def _verify_adapter(work: Work, verdict: Verdict) -> None:
    """Compare the adapter on the unquantized base. For the accuracy it is loaded on the base used in training."""
    base = work.base
    policy = load_exported_adapter(base, base.model, work.places.aside)
    found = answer_logits(policy, work.probe.prompts, work.probe.answers)
    verdict.hold("the adapter, loaded by peft", TUNED, work.probe.logits, found, BOUNDS["adapter"])
    if base.trained.quantization != "none":
        del policy
        let_go()
        policy = load_exported_adapter(base, base.trained, work.places.aside)
    verdict.loaded = asked(policy)


def _verify_merged(work: Work, verdict: Verdict) -> None:
    policy = load_exported_model(work.base, work.places.aside)
    found = answer_logits(policy, work.probe.prompts, work.probe.answers)
    verdict.hold("the merged model", TUNED, work.probe.logits, found, BOUNDS["merged"])
    if set(policy.eos_ids) != set(work.eos_ids):
        verdict.broken.append(f"its answers end at the tokens {policy.eos_ids}, but its base's at {work.eos_ids}")
    if policy.template_end is not None:
        name = work.tokenizer.convert_ids_to_tokens(policy.template_end)
        verdict.broken.append(f"its generation settings do not name {name}, which ends a turn in its chat template")
    if policy.tokenizer.chat_template != work.tokenizer.chat_template:
        verdict.broken.append("its chat template differs from its base's")
    prompts = [work.tokenizer.decode(prompt) for prompt in work.probe.prompts]
    if any(work.tokenizer.encode(text) != policy.tokenizer.encode(text) for text in prompts):
        verdict.broken.append("its tokenizer gives other tokens for the prompts than its base's")
    verdict.loaded = asked(policy)


def _verify_gguf(work: Work, verdict: Verdict) -> None:
    assert work.tools is not None
    loaded = asked_llama(work.tools, work.gguf, work.tokenizer, work.places.scratch)
    prompts, answers = list(work.probe.prompts), list(work.probe.answers)
    texts = [work.tokenizer.decode(prompt) for prompt in prompts]
    verdict.broken += what_is_lost(work.tools, work.gguf, work.tokenizer, texts, work.named_ends)
    if work.template_end is not None and work.template_end not in ends_of(work.tools, work.gguf, [work.template_end]):
        name = work.tokenizer.convert_ids_to_tokens(work.template_end)
        verdict.notes.append(f"llama.cpp does not end an answer at {name} by itself: pass it as a stop text")
    found = loaded.logits(prompts, answers)
    if work.f16 == work.gguf:
        verdict.hold("the GGUF file in f16", TUNED, work.probe.logits, found, BOUNDS["gguf f16"])
    else:
        plain = asked_llama(work.tools, work.f16, work.tokenizer, work.places.scratch).logits(prompts, answers)
        verdict.hold("the GGUF file in f16", TUNED, work.probe.logits, plain, BOUNDS["gguf f16"])
        quant = work.request.quant
        verdict.hold(f"the GGUF file in {quant}", "its f16", plain, found, QUANT_BOUNDS[quant])
        verdict.hold(f"the GGUF file in {quant}", TUNED, work.probe.logits, found, None)
    verdict.loaded = loaded


def four_bit_drift(work: Work) -> Proof | None:
    """Compare the 4-bit policy that was trained with the unquantized base plus adapter that an export is made from."""
    if work.base.config.model.quantization == "none":
        return None
    work.progress("loading the 4-bit policy, to compare it with the unquantized model")
    policy = load_trained(work.base, work.checkpoint)
    found = answer_logits(policy, work.probe.prompts, work.probe.answers)
    return Proof("the 4-bit policy, as it was trained", TUNED, distance(work.probe.logits, found), None)


def let_go() -> None:
    """Free the memory of models that are no longer referenced."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
