"""The execution plan: how much a run computes at once on its device, and which fast paths it takes.

The choices are made once, verified against the plain path, recorded, and reused when the run is resumed: choices that
depend on free memory could come out differently in a resumed run and would change the last bits of its results.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import torch

from aapo_desk.config import RunConfig
from aapo_desk.fit import Room, judge, spills
from aapo_desk.memory import ModelShape, loaded, plan
from aapo_desk.models.logprobs import can_share
from aapo_desk.models.policy import Policy
from aapo_desk.models.room import free_bytes, ran_out, shape_of
from aapo_desk.models.sources import ModelError
from aapo_desk.models.unsloth import UnslothError, first_line
from aapo_desk.rollout import Sampling, can_be_fixed
from aapo_desk.rollout.trial import CPU_ROWS, Workload
from aapo_desk.rollout.verify import Verdict, check_backend, verify_fast_paths
from aapo_desk.store import RunWriter, event_words
from aapo_desk.training.device.allocator import freed_at_once, give_back
from aapo_desk.training.device.memory_probe import probe
from aapo_desk.training.update import checkpoint_layers

log = logging.getLogger(__name__)

ADDED = {"checkpointing": 0, "shadow_weights": 0, "fixed_steps": 0, "row_mask": 1, "own_update": 0}
"""Choices that older runs' records do not have, with the values that those runs used."""


def settled(
    store: RunWriter,
    policy: Policy,
    config: RunConfig,
    prompts: Sequence[list[int]],
    tell: Callable[[str], None],
    probed: bool = True,
    instead: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Return the run's choices and apply them to ``policy`` and torch.

    They are those on record, or new ones, which are compared with the plain path, probed and recorded. ``instead``:
    choices that are fixed rather than determined here. Raises ModelError if the run does not fit, and UnslothError if
    unsloth's layers do not give the same results in this training loop as on their own.
    """
    kept = store.recall("choices")
    if kept is None:
        kept = choose(policy, config) | dict(instead or {})
        apply(kept, policy)
        tell("comparing the fast paths with the plain one on this device")
        if not policy.ours:
            _look_at(policy, config, prompts)
        with freed_at_once():
            verdict = _verify(policy, config, prompts, kept)
        for line in verdict.refused.values():
            log.warning(line)
            store.write_event("notice", 0, message=line)
        log.info("fast paths compared: %s", verdict.figures)
        store.remember("verification", verdict.figures)
        kept = verdict.choices
        if probed:
            tell("measuring a step at the longest lengths")
            kept = _probe(store, policy, config, prompts, kept)
        store.remember("choices", kept)
        log.info("choices for this device: %s", kept)
    choices = ADDED | {key: int(value) for key, value in kept.items()}
    apply(choices, policy)
    return choices


def _workload(policy: Policy, config: RunConfig, prompts: Sequence[list[int]], batch_rows: int) -> Workload:
    """Return a trial workload of the size that a step decodes: the run's own numbers of prompts and rows."""
    rollout = config.rollout
    rows = min(batch_rows, CPU_ROWS) if policy.device.type == "cpu" else batch_rows
    return Workload(prompts[: rollout.prompts_per_step], rollout.group_size, rollout.max_new_tokens, rows)


def _verify(policy: Policy, config: RunConfig, prompts: Sequence[list[int]], choices: dict[str, int]) -> Verdict:
    """Compare the fast paths with the plain one at the run's own size, or at a smaller one if memory runs out.

    It need not find the largest that fits: the memory probe, which follows, does.
    """
    workload: Workload | None = _workload(policy, config, prompts, choices["batch_rows"])
    while workload is not None:
        try:
            return verify_fast_paths(policy, workload, Sampling.of(config.rollout), choices)
        except (RuntimeError, MemoryError) as error:
            smaller = workload.smaller()
            if not ran_out(error) or smaller is None:
                raise
            log.info("memory ran out while comparing the fast paths: %s", first_line(error))
        # Outside the except block the exception is freed, and with it the frames that held the tensors.
        workload = smaller
        give_back(policy.device)
    raise AssertionError("a workload of one row of each side has no smaller one")


def _look_at(policy: Policy, config: RunConfig, prompts: Sequence[list[int]]) -> None:
    """Check that unsloth's layers work in this training loop. Raises UnslothError if they do not."""
    try:
        reason = check_backend(policy, _workload(policy, config, prompts, CPU_ROWS), Sampling.of(config.rollout))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = f"failed a trial run: {first_line(error)}"
        log.debug(reason, exc_info=True)
    if reason:
        raise UnslothError(reason, imported=True)


def _probe(
    store: RunWriter, policy: Policy, config: RunConfig, prompts: Sequence[list[int]], choices: dict[str, int]
) -> dict[str, int]:
    """Probe the choices, log and record the result, and return choices that fit."""
    found = probe(policy, config, shape_of(policy), prompts, choices, apply)
    data = found.as_json()
    log.log(logging.WARNING if found.smaller else logging.INFO, event_words("probe", data))
    store.write_event("probe", 0, **data)
    if found.uncaptured:
        log.warning(found.uncaptured)
        store.write_event("notice", 0, message=found.uncaptured)
    return found.choices


def apply(choices: Mapping[str, int], policy: Policy) -> None:
    """Apply these choices to ``policy`` and torch."""
    torch.set_num_threads(choices["threads"])
    policy.masks_rows = bool(choices["row_mask"])
    policy.own_update = bool(choices["own_update"])
    if choices["checkpointing"]:
        checkpoint_layers(policy)
    if choices["shadow_weights"] and policy.shadow is None:
        policy.use_shadow()


def choose(policy: Policy, config: RunConfig) -> dict[str, int]:
    """Return the choices for this device and model.

    token_budget, batch_rows, checkpointing and shadow_weights are planned by free memory. The others are
    share_prompts: whether completions in an update may share their prompt, which is exact only without dropout;
    fixed_steps: whether decoding takes static shapes and is captured as a CUDA graph; row_mask: whether policy and
    reference share a batch; own_update: whether layers without dequantized weights are computed by our own autograd
    function in an update; threads: the number of CPU threads. If unsloth computes the layers, row_mask, shadow_weights
    and own_update are off.
    """
    shape, device = shape_of(policy), policy.device
    free = free_bytes(device) + loaded(shape, config, device.type)
    if device.type == "cuda" and spills():
        _refuse_to_spill(shape, config, free)
    if not policy.ours:
        config = config.model_copy(update={"rollout": config.rollout.model_copy(update={"weights": "adapter"})})
    planned = plan(shape, config, free, device.type)
    return {
        "token_budget": planned.token_budget,
        "batch_rows": planned.batch_rows,
        "checkpointing": int(planned.gradient_checkpointing),
        "shadow_weights": int(planned.shadow_weights),
        "fixed_steps": int(device.type == "cuda" and config.rollout.capture == "auto" and can_be_fixed(policy)),
        "row_mask": int(policy.ours),
        "own_update": int(policy.ours),
        "share_prompts": int(config.lora.dropout == 0 and can_share(policy)),
        "threads": torch.get_num_threads(),
    }


def fence() -> None:
    """On WSL, limit torch to the GPU's free memory, so that more fails as elsewhere and does not use system memory."""
    if spills() and torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction(free / total)


def _refuse_to_spill(shape: ModelShape, config: RunConfig, free: int) -> None:
    """Raise ModelError if the run is estimated not to fit: on WSL the driver never reports out of memory."""
    found = judge(shape, config, Room("cuda", "the GPU", free, free, spills=True))
    if found.verdict == "too large":
        raise ModelError(
            f"the run does not fit: it needs at least {found.least / 2**30:.1f} GB of GPU memory and "
            f"{free / 2**30:.1f} GB are free; on WSL it would not fail but use system memory, many times slower. "
            "aapo-desk fit PRESET shows what would help"
        )
