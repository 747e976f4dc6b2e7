"""Banked reference rewards (``algorithm.reference: bank``): a prompt's reference is sampled and scored once.

The reference is frozen, so its rewards for a prompt do not change; their sampling noise does. The paper draws them anew
in each step (``fresh``); here the first draw is reused whenever the prompt returns: a variant, and labelled as one.

A resumed run must end as an uninterrupted one, though it finds what its killed part left in the bank. So what is drawn
for a prompt follows from the run's seed and the prompt, not from the step; the policy's rows are decoded in a batch of
their own, whether reference rows are due or not; and a step's new groups are kept all or none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from aapo_desk.config import RunConfig
from aapo_desk.models.loading import choose_dtype
from aapo_desk.models.policy import Policy
from aapo_desk.models.rows import StartWeights
from aapo_desk.models.sources import ResolvedModel, identity
from aapo_desk.rewards import RewardPool
from aapo_desk.rollout.bank import Bank, Group
from aapo_desk.rollout.decoding import Completions, Row, decode
from aapo_desk.rollout.sampling import Sampling, derive_seed, uniforms
from aapo_desk.rollout.scoring import Drawn, Scored
from aapo_desk.tasks import Problem

FORMAT = 1
"""Of a key and what lies under it. Another way to draw a group is another format."""

BANKED = "reference rewards are banked: each prompt's reference is sampled once; a variant of the paper's fresh pairing"


def settings(config: RunConfig, policy: Policy, resolved: ResolvedModel, pool: RewardPool) -> dict[str, Any]:
    """All that determines a prompt's reference rewards but the prompt, as JSON.

    Chat template and system prompt are not here: they are in the prompt's tokens.
    """
    rollout = config.rollout
    # Only where there is one: what was banked before there could be stays good.
    start = {"start": _weights(policy.start)} if policy.start is not None else {}
    return start | {
        "format": FORMAT,
        "model": identity(config.model, resolved),
        **({} if policy.backend == "transformers" else {"backend": policy.backend}),  # as banks have it from before
        "trust_remote_code": config.model.trust_remote_code,
        "quantization": config.model.quantization,
        "dtype": str(choose_dtype(config.model.compute_dtype, policy.device)),
        "device": policy.device.type,
        "sampling": asdict(Sampling.of(rollout)),
        "max_new_tokens": rollout.max_new_tokens,
        "group_size": rollout.group_size,
        "eos": list(policy.eos_ids),
        "rewards": pool.definition,
        "seed": config.run.seed,
    }


class BankedReference:
    """The reference of one run, for the run's own ``settings``."""

    def __init__(self, config: RunConfig, policy: Policy, settings: Mapping[str, Any], bank: Bank) -> None:
        self.config = config
        self.policy = policy
        self.bank = bank
        self._settings = _digest(settings)

    def settle(self, settings: Mapping[str, Any]) -> None:
        """Go on with other settings: what is banked under the ones before no longer holds."""
        self._settings = _digest(settings)

    def key(self, prompt: Sequence[int], problem: Problem) -> str:
        """Of a prompt's tokens and what the rewards see of its problem."""
        return _digest([self._settings, list(prompt), problem.problem, problem.answer])

    def look_up(self, prompts: Sequence[Sequence[int]], problems: Sequence[Problem]) -> Lookup:
        """What the bank holds for a step's prompts."""
        keys = [self.key(prompt, problem) for prompt, problem in zip(prompts, problems, strict=True)]
        return Lookup(self, prompts, problems, keys, self.bank.find(keys))

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        batch_rows: int = 1 << 30,
        progress: Callable[[float], None] = lambda _: None,
        fixed: bool = False,
    ) -> Completions:
        """The reference's G completions of each prompt, rows m·G + g."""
        config = self.config.rollout
        rows = [Row(number, adapter=False) for number in range(len(prompts)) for _ in range(config.group_size)]
        seeds = [derive_seed(self.config.run.seed, "reference", _digest(list(prompt))) for prompt in prompts]
        numbers = torch.cat([uniforms(config.group_size, config.max_new_tokens, seed) for seed in seeds])
        sampling = Sampling.of(config)
        return decode(self.policy, prompts, rows, config.max_new_tokens, sampling, numbers, batch_rows, progress, fixed)


@dataclass(frozen=True)
class Lookup:
    """A step's prompts and problems, their keys, and the groups that the bank held."""

    reference: BankedReference
    prompts: Sequence[Sequence[int]]
    problems: Sequence[Problem]
    keys: Sequence[str]
    groups: Mapping[str, Group]

    @property
    def missing(self) -> list[int]:
        """Places of the prompts that are to be sampled. One that the step holds twice is sampled once."""
        first = {key: place for place, key in reversed(list(enumerate(self.keys)))}
        return sorted(place for key, place in first.items() if key not in self.groups)

    def draw(self, batch_rows: int, progress: Callable[[float], None], fixed: bool = False) -> list[Drawn]:
        """The missing prompts' completions; empty where none is missing."""
        missing = self.missing
        if not missing:
            return []
        prompts = [self.prompts[place] for place in missing]
        return [
            Drawn(
                self.reference.sample(prompts, batch_rows, progress, fixed), [self.problems[place] for place in missing]
            )
        ]

    def complete(self, scored: Sequence[Scored], keep: bool = True) -> list[Scored]:
        """The reference's completions of the whole step, rows p·G + g, from those of ``draw``, which the bank keeps."""
        size, missing = self.reference.config.rollout.group_size, self.missing
        # Their keys are made again: a reward may have been mended since they were looked up.
        new = {
            self.reference.key(self.prompts[place], self.problems[place]): scored[m * size : (m + 1) * size]
            for m, place in enumerate(missing)
        }
        standing = self.reference.bank.keep(new) if keep else new
        kept = {self.keys[place]: standing[key] for place, key in zip(missing, new, strict=True)}
        groups = {**self.groups, **kept}
        return [one for key in self.keys for one in groups[key]]


def _weights(start: StartWeights) -> str:
    """Names the adapter that the reference has on by its numbers."""
    found = hashlib.sha256()
    for pair in start.values():
        for value in pair:
            found.update(value.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
