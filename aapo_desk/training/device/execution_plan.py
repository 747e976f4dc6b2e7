"""What a run chooses for its device: how much at once, which fast paths. Made once, proved, recorded and replayed.

A choice by free memory that came out differently in a resumed run would change its last bits.
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
"""Choices that records of older runs do not hold, and what those runs did."""


def settled(
    store: RunWriter,
    policy: Policy,
    config: RunConfig,
    prompts: Sequence[list[int]],
    tell: Callable[[str], None],
    probed: bool = True,
    instead: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """The run's choices: those on record, or new ones, compared with the plain path, probed and put on record.

    ``instead``: choices that are set, not made.
    Leaves ``policy`` and torch as the choices say. Raises ModelError where the run does not fit, and UnslothError where
    unsloth's layers do not give in this loop what they give by themselves.
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
    """What a step decodes: the run's own numbers of prompts and rows."""
    rollout = config.rollout
    rows = min(batch_rows, CPU_ROWS) if policy.device.type == "cpu" else batch_rows
    return Workload(prompts[: rollout.prompts_per_step], rollout.group_size, rollout.max_new_tokens, rows)


def _verify(policy: Policy, config: RunConfig, prompts: Sequence[list[int]], choices: dict[str, int]) -> Verdict:
    """Compare the fast paths at the run's own size, or a smaller one if memory runs out: the probe, which follows,
    finds what fits."""
    workload: Workload | None = _workload(policy, config, prompts, choices["batch_rows"])
    while workload is not None:
        try:
            return verify_fast_paths(policy, workload, Sampling.of(config.rollout), choices)
        except (RuntimeError, MemoryError) as error:
            smaller = workload.smaller()
            if not ran_out(error) or smaller is None:
                raise
            log.info("memory ran out while comparing the fast paths: %s", first_line(error))
        # Out here the exception is gone, and with it the frames that held the tensors.
        workload = smaller
        give_back(policy.device)
    raise AssertionError("a workload of one row of each side has no smaller one")


def _look_at(policy: Policy, config: RunConfig, prompts: Sequence[list[int]]) -> None:
    """Raises UnslothError where the loop and unsloth do not get on."""
    try:
        reason = check_backend(policy, _workload(policy, config, prompts, CPU_ROWS), Sampling.of(config.rollout))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = f"fails in a trial: {first_line(error)}"
        log.debug(reason, exc_info=True)
    if reason:
        raise UnslothError(reason, imported=True)


def _probe(
    store: RunWriter, policy: Policy, config: RunConfig, prompts: Sequence[list[int]], choices: dict[str, int]
) -> dict[str, int]:
    """Probe the choices, say and record what was found, and give those that fit."""
    found = probe(policy, config, shape_of(policy), prompts, choices, apply)
    data = found.as_json()
    log.log(logging.WARNING if found.smaller else logging.INFO, event_words("probe", data))
    store.write_event("probe", 0, **data)
    if found.uncaptured:
        log.warning(found.uncaptured)
        store.write_event("notice", 0, message=found.uncaptured)
    return found.choices


def apply(choices: Mapping[str, int], policy: Policy) -> None:
    """Let ``policy`` and torch compute as these choices say."""
    torch.set_num_threads(choices["threads"])
    policy.masks_rows = bool(choices["row_mask"])
    policy.own_update = bool(choices["own_update"])
    if choices["checkpointing"]:
        checkpoint_layers(policy)
    if choices["shadow_weights"] and policy.shadow is None:
        policy.use_shadow()


def choose(policy: Policy, config: RunConfig) -> dict[str, int]:
    """What this device and model ask for.

    token_budget, batch_rows, checkpointing and shadow_weights: the plan by free memory; share_prompts: whether the
    update may compute completions behind one prompt, which is exact only without dropout; fixed_steps: whether the
    decode step is captured; row_mask: whether policy and reference share a batch;
    own_update: whether layers without a shadow are computed by our own function in an update; threads: the CPU's. Where
    unsloth computes the layers, row mask, shadow weights and own update are out.
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
    """On WSL, let what is beyond the GPU's free memory fail as elsewhere, instead of going into system memory."""
    if spills() and torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction(free / total)


def _refuse_to_spill(shape: ModelShape, config: RunConfig, free: int) -> None:
    """On WSL the driver never says that memory has run out, so the estimate decides. Raises ModelError."""
    found = judge(shape, config, Room("cuda", "the GPU", free, free, spills=True))
    if found.verdict == "too large":
        raise ModelError(
            f"the run does not fit: it needs at least {found.least / 2**30:.1f} GB of GPU memory and "
            f"{free / 2**30:.1f} GB are free; on WSL it would not fail but go on in system memory, many times slower. "
            "aapo-desk fit PRESET says what would help"
        )
