"""The memory probe: before the first step, measure what a step takes at the longest lengths, next to the estimate.

For the update it computes one micro-batch, as large as the plan allows, of the longest prompt with completions of the
longest length, packed to fill the plan best; for the rollout, the prefill and the last decode step of all rows. Tensors
of the same size take the place of the adapter's gradient and the optimiser's state, which the first step would create.
The probe leaves nothing behind, neither a gradient nor a changed random state, so a run ends in the same bits with the
probe as without it.

If the GPU's memory is not enough, the plan is made smaller until it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch

from aapo_desk.config import REFERENCE_ALGORITHMS, RunConfig
from aapo_desk.memory import SLACK, Estimate, ModelShape, Settings, estimate
from aapo_desk.models.logprobs import Pack, pack_logps
from aapo_desk.models.policy import Policy
from aapo_desk.models.room import ran_out
from aapo_desk.models.sources import ModelError
from aapo_desk.rollout import CaptureError, Row, Sampling, ends
from aapo_desk.training.device.allocator import Peaks, give_back, held_mb
from aapo_desk.training.micro_batches import Cost

log = logging.getLogger(__name__)

Phase = Literal["update", "rollout", "reference", "evaluation", "optimizer"]
"""The phases that can run out of memory. The probe measures the first two; "optimizer" is the step ending an update."""
Choices = dict[str, int]

NOT_CAPTURED = (
    "the decode step cannot be captured as a CUDA graph: {reason}; the run decodes without CUDA graphs, more slowly"
)


@dataclass(frozen=True)
class Phases:
    """Peak bytes of each phase: on a GPU of all tensors, on the CPU in addition to the loaded model."""

    rollout: int
    update: int


@dataclass(frozen=True)
class Probe:
    """The probe's result. ``measured`` is None if the kernel does not report peak memory."""

    choices: Choices
    device: str
    measured: Phases | None
    estimated: Phases
    smaller: list[str] = field(default_factory=list)
    """Descriptions of what had to be made smaller."""
    seconds: float = 0.0
    uncaptured: str | None = None
    """Why the decode step is not captured as a CUDA graph, as a line for the user; None if it is, or should not be."""

    def as_json(self) -> dict[str, Any]:
        data = asdict(self)
        del data["choices"], data["uncaptured"]
        return data


@dataclass(frozen=True)
class Sizes:
    """The most that is computed at once: tokens of one row, tokens of a micro-batch, and rows decoded."""

    row: int
    tokens: int
    rows: int


@dataclass(frozen=True)
class Longest:
    """A step's largest pieces under a run's choices: the longest prompt, a micro-batch, the rows decoded at once."""

    prompt: list[int]
    micro_batch: list[Pack]
    rows: list[Row]

    @classmethod
    def of(cls, policy: Policy, config: RunConfig, prompts: Sequence[list[int]], choices: Mapping[str, int]) -> Longest:
        prompt, rollout = max(prompts, key=len), config.rollout
        cost = Cost.of(policy.causal.config.get_text_config()) if choices["share_prompts"] else None
        packs, size, length = largest(len(prompt), config, choices["token_budget"], cost)
        completion = [prompt[place % len(prompt)] for place in range(length)]
        sides = [True, False] if config.algorithm.name in REFERENCE_ALGORITHMS else [True]
        rows = [
            Row(number, adapter)
            for adapter in sides
            for number in range(rollout.prompts_per_step)
            for _ in range(rollout.group_size)
        ]
        return cls(prompt, [Pack(prompt, [completion] * size)] * packs, rows[: choices["batch_rows"]])

    def settings(self, config: RunConfig, device_type: str, choices: Mapping[str, int]) -> Settings:
        """Return the memory estimate's inputs for these batches."""
        completions = [completion for pack in self.micro_batch for completion in pack.completions]
        return replace(
            Settings.of(config, device_type, tokens=padded(self.micro_batch), rows=len(self.rows)),
            prompt_tokens=len(self.prompt),
            completion_tokens=config.rollout.max_new_tokens,
            prompts=len({(row.prompt, row.adapter) for row in self.rows}),
            scored=sum(map(len, completions)),
            longest=max(pack.tokens for pack in self.micro_batch),
            shadow=bool(choices["shadow_weights"]),
            checkpointing=bool(choices["checkpointing"]),
        )

    def sizes(self, config: RunConfig) -> Sizes:
        """Return the sizes that ``less`` could make smaller."""
        return Sizes(len(self.prompt) + config.rollout.max_new_tokens, padded(self.micro_batch), len(self.rows))

    def update(self, policy: Policy, config: RunConfig) -> None:
        """Run the micro-batch forward and backward, with a gradient of ones."""
        rollout = config.rollout
        with policy.training():
            logps = pack_logps(policy, self.micro_batch, rollout.max_new_tokens, rollout.temperature)
            torch.autograd.backward(logps, torch.ones_like(logps))

    def rollout(self, policy: Policy, config: RunConfig, fixed: bool) -> None:
        """Run prefill and the last decode step at the longest lengths."""
        prompts = [self.prompt] * config.rollout.prompts_per_step
        ends(policy, prompts, self.rows, config.rollout.max_new_tokens, Sampling.of(config.rollout), fixed)


def largest(prompt: int, config: RunConfig, budget: int, cost: Cost | None) -> tuple[int, int, int]:
    """Return the largest micro-batch: its packs, the completions in each pack, and the tokens of each completion.

    It is all of a step's rows at the longest lengths if they fit; else what fills the budget best, possibly with
    shorter completions, because the packing of rows depends on their lengths. It has at least one row, the longest.
    """
    prompts, group, new = config.rollout.prompts_per_step, config.rollout.group_size, config.rollout.max_new_tokens
    size = cost.completions_a_pack(prompt, new, group) if cost else 1
    packs = prompts * -(-group // size)
    if packs * (prompt + size * new) <= budget:
        return packs, size, new
    packs = -(-budget // (prompt + size * new))
    filling = packs, size, (budget // packs - prompt) // size
    alike = [(budget // (prompt + count * new), count, new) for count in range(1, size + 1)]
    found = [(many, count, length) for many, count, length in (filling, *alike) if many > 0 and length > 0]
    best = max(found, key=lambda one: one[0] * (prompt + one[1] * one[2]), default=(1, 1, new))
    return best if best[0] * (prompt + best[1] * best[2]) >= prompt + new else (1, 1, new)


def padded(packs: Sequence[Pack]) -> int:
    """Return the number of tokens in a micro-batch, including padding."""
    return len(packs) * max(pack.tokens for pack in packs)


def probe(
    policy: Policy,
    config: RunConfig,
    shape: ModelShape,
    prompts: Sequence[list[int]],
    choices: Choices,
    apply: Callable[[Mapping[str, int], Policy], None],
) -> Probe:
    """Measure a step under these choices, or under smaller ones if the GPU's memory is not enough.

    ``apply`` applies choices to the policy; those of the result stay applied. Raises ModelError if nothing smaller is
    left to try.
    """
    started = time.perf_counter()
    smaller: list[str] = []
    uncaptured: str | None = None
    while True:
        longest = Longest.of(policy, config, prompts, choices)
        try:
            tried = _try(policy, config, choices, longest)
        except CaptureError as error:
            uncaptured = NOT_CAPTURED.format(reason=error)
            choices = choices | {"fixed_steps": 0}
            apply(choices, policy)
            continue
        if not isinstance(tried, str):
            break
        found = less(tried, config, choices, longest.sizes(config))
        if found is None:
            raise ModelError(
                f"the run does not fit: at its longest lengths the {tried} runs out of memory even with a single row "
                "at a time; aapo-desk fit PRESET shows what would help"
            )
        choices, said = found
        smaller.append(said)
        if not choices["shadow_weights"]:
            policy.shadow = None
        apply(choices, policy)
    estimated = _phases(estimate(shape, longest.settings(config, policy.device.type, choices)), policy.device)
    return Probe(choices, policy.device.type, tried, estimated, smaller, time.perf_counter() - started, uncaptured)


def _phases(found: Estimate, device: torch.device) -> Phases:
    if device.type == "cuda":
        return Phases(found.rollout, found.update)
    # Resident memory includes the allocator's overhead over the tensors.
    return Phases(*(int(SLACK["cpu"] * (phase - found.loaded)) for phase in (found.rollout, found.update)))


def _try(policy: Policy, config: RunConfig, choices: Mapping[str, int], longest: Longest) -> Phases | Phase | None:
    """Return the peaks, None if the kernel does not report them, or the phase in which memory ran out."""
    device = policy.device
    phase: Phase = "update"
    try:
        give_back(device)
        before = 0.0 if device.type == "cuda" else held_mb(device)
        with _stand_ins(policy), torch.random.fork_rng([device] if device.type == "cuda" else []):
            peaks = Peaks(device)
            peaks.enter("update")
            longest.update(policy, config)
            give_back(device)
            phase = "rollout"
            peaks.enter("rollout")
            longest.rollout(policy, config, bool(choices["fixed_steps"]))
            found = peaks.read()
        return Phases(*(int((found[name] - before) * 2**20) for name in ("rollout", "update")))
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        return phase
    except OSError as error:
        log.info("could not measure the memory of the probe: %s", error)
        return None
    finally:
        give_back(device)


@contextmanager
def _stand_ins(policy: Policy) -> Iterator[None]:
    """Give the adapter a gradient and hold memory for the optimiser's state inside the context; free both after it."""
    parameters = policy.adapter_parameters().values()
    state = [torch.ones_like(parameter) for parameter in parameters for _ in range(2)]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    try:
        yield
    finally:
        state.clear()
        for parameter in parameters:
            parameter.grad = None


def less(phase: Phase, config: RunConfig, choices: Choices, sizes: Sizes) -> tuple[Choices, str] | None:
    """Return smaller choices after memory ran out in a phase and a description of the change, or None if none is left.

    First, half as much is computed at once. If that is a single row already, dequantized weights are dropped, and then
    gradient checkpointing is turned on: both cost only time.
    """
    if phase == "update" and sizes.tokens > sizes.row:
        budget = max(sizes.row, sizes.tokens // 2)
        return choices | {"token_budget": budget}, f"the update's micro-batches from {sizes.tokens} to {budget} tokens"
    if phase != "update" and sizes.rows > 1:
        rows = sizes.rows // 2
        return choices | {"batch_rows": rows}, f"the rows decoded at once from {sizes.rows} to {rows}"
    if choices["shadow_weights"] and config.rollout.weights == "auto":
        return choices | {"shadow_weights": 0}, "no dequantized weights are kept"
    if phase == "update" and not choices["checkpointing"]:
        return choices | {"checkpointing": 1}, "gradient checkpointing is turned on"
    return None
