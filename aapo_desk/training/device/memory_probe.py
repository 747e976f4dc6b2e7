"""The probe: before the first step, what a step takes at the longest lengths, beside what was estimated.

Of the update it computes one micro-batch, as large as the plan allows, of the longest prompt and completions of the
longest length, packed so that they fill the plan best; of the rollout the prompts' reading and the last token of all
rows. Zeros stand in for the adapter's gradient and the optimiser's state, which the first step would make. Nothing of
it stays: neither a gradient nor a random number drawn. So a run ends in the same bits with the probe as without.

Where the GPU's memory is not enough, the plan is made smaller until it is.
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
"""What runs out of memory. The probe looks at the first two; the last is the step that ends an update."""
Choices = dict[str, int]

NOT_CAPTURED = (
    "the decode step cannot be captured as a CUDA graph: {reason}; the run decodes without graphs, more slowly"
)


@dataclass(frozen=True)
class Phases:
    """Bytes at the most in each phase: of all tensors on a GPU, over the loaded model on the CPU."""

    rollout: int
    update: int


@dataclass(frozen=True)
class Probe:
    """What was found. ``measured`` is None where the kernel does not tell."""

    choices: Choices
    device: str
    measured: Phases | None
    estimated: Phases
    smaller: list[str] = field(default_factory=list)
    """What had to be made smaller, in words."""
    seconds: float = 0.0
    uncaptured: str | None = None
    """Why the decode step is not captured, as a line for the user; None if it is, or was not to be."""

    def as_json(self) -> dict[str, Any]:
        data = asdict(self)
        del data["choices"], data["uncaptured"]
        return data


@dataclass(frozen=True)
class Sizes:
    """How much is computed at once at the most: tokens of one row and of a micro-batch, and rows decoded."""

    row: int
    tokens: int
    rows: int


@dataclass(frozen=True)
class Longest:
    """A step's largest pieces under a run's choices."""

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
        """These sizes, for an estimate."""
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
        """The same for what could be made smaller."""
        return Sizes(len(self.prompt) + config.rollout.max_new_tokens, padded(self.micro_batch), len(self.rows))

    def update(self, policy: Policy, config: RunConfig) -> None:
        """The micro-batch forward and backward, by a gradient of ones."""
        rollout = config.rollout
        with policy.training():
            logps = pack_logps(policy, self.micro_batch, rollout.max_new_tokens, rollout.temperature)
            torch.autograd.backward(logps, torch.ones_like(logps))

    def rollout(self, policy: Policy, config: RunConfig, fixed: bool) -> None:
        """The beginning and the end of the rows."""
        prompts = [self.prompt] * config.rollout.prompts_per_step
        ends(policy, prompts, self.rows, config.rollout.max_new_tokens, Sampling.of(config.rollout), fixed)


def largest(prompt: int, config: RunConfig, budget: int, cost: Cost | None) -> tuple[int, int, int]:
    """Packs, completions in each and tokens of these, in the largest micro-batch.

    All of a step's rows at the longest lengths where they fit; else what fills the budget, be it with shorter
    completions: how rows are packed depends on their lengths. At least one row, the longest.
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
    """Tokens of a micro-batch, its padding counted."""
    return len(packs) * max(pack.tokens for pack in packs)


def probe(
    policy: Policy,
    config: RunConfig,
    shape: ModelShape,
    prompts: Sequence[list[int]],
    choices: Choices,
    apply: Callable[[Mapping[str, int], Policy], None],
) -> Probe:
    """Measure a step under these choices, or under smaller ones where the GPU's memory is not enough.

    ``apply`` lets the policy compute as choices say, and leaves it so. Raises ModelError where nothing smaller is left.
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
                "at a time; aapo-desk fit PRESET says what would help"
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
    # Resident memory holds what the allocator takes over the tensors.
    return Phases(*(int(SLACK["cpu"] * (phase - found.loaded)) for phase in (found.rollout, found.update)))


def _try(policy: Policy, config: RunConfig, choices: Mapping[str, int], longest: Longest) -> Phases | Phase | None:
    """The peaks; None where the kernel does not tell them; or the phase in which memory ran out."""
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
        log.info("the probe's memory cannot be measured: %s", error)
        return None
    finally:
        give_back(device)


@contextmanager
def _stand_ins(policy: Policy) -> Iterator[None]:
    """Inside, the adapter has a gradient, and memory is taken for the optimiser's state; afterwards neither."""
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
    """Smaller choices after memory ran out in a phase, and what was changed in words; None where nothing is left.

    First half as much at once; where that is a single row, what only saves time is given up.
    """
    if phase == "update" and sizes.tokens > sizes.row:
        budget = max(sizes.row, sizes.tokens // 2)
        return choices | {"token_budget": budget}, f"the update's micro-batches from {sizes.tokens} to {budget} tokens"
    if phase != "update" and sizes.rows > 1:
        rows = sizes.rows // 2
        return choices | {"batch_rows": rows}, f"the rows decoded at once from {sizes.rows} to {rows}"
    if choices["shadow_weights"] and config.rollout.weights == "auto":
        return choices | {"shadow_weights": 0}, "no weights are kept at hand dequantised"
    if phase == "update" and not choices["checkpointing"]:
        return choices | {"checkpointing": 1}, "layers are computed again on the way back"
    return None
