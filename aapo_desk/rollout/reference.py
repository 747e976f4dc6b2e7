"""The reference cache (``algorithm.reference: bank``): a prompt's reference completions are sampled and scored once.

The reference is frozen, so the distribution of its rewards for a prompt does not change; only their sampling noise
does. The paper samples them again in each step (``fresh``). Here the first sample is reused whenever the prompt comes
again; this is a variant, and is labelled as one.

A resumed run must give the same result as an uninterrupted one, although it finds in the cache what the killed process
stored. So the samples for a prompt depend on the run's seed and the prompt, not on the step; the policy's rows are
decoded in a batch of their own, whether or not reference rows are needed; and of a step's new groups all or none are
stored.
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
"""The version of the keys and of the data stored under them. If groups are sampled in another way, it must change."""

BANKED = (
    "reference rewards are cached: each prompt's reference completions are sampled once; a variant of the paper's "
    "fresh pairing"
)


def settings(config: RunConfig, policy: Policy, resolved: ResolvedModel, pool: RewardPool) -> dict[str, Any]:
    """Return everything except the prompt that determines a prompt's reference rewards, as JSON.

    Chat template and system prompt are not included, since the prompt's tokens contain them.
    """
    rollout = config.rollout
    # Only if there is one, so that entries stored before this field existed stay valid.
    start = {"start": _weights(policy.start)} if policy.start is not None else {}
    return start | {
        "format": FORMAT,
        "model": identity(config.model, resolved),
        **({} if policy.backend == "transformers" else {"backend": policy.backend}),  # keeps older entries valid
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
    """The cached reference of one run, for the run's own ``settings``."""

    def __init__(self, config: RunConfig, policy: Policy, settings: Mapping[str, Any], bank: Bank) -> None:
        self.config = config
        self.policy = policy
        self.bank = bank
        self._settings = _digest(settings)

    def settle(self, settings: Mapping[str, Any]) -> None:
        """Replace the settings; groups stored under the earlier ones are no longer used."""
        self._settings = _digest(settings)

    def key(self, prompt: Sequence[int], problem: Problem) -> str:
        """Return the key for a prompt: a digest of the settings, the prompt's tokens, and the problem and answer that
        the rewards see."""
        return _digest([self._settings, list(prompt), problem.problem, problem.answer])

    def look_up(self, prompts: Sequence[Sequence[int]], problems: Sequence[Problem]) -> Lookup:
        """Look up the groups of a step's prompts in the cache."""
        keys = [self.key(prompt, problem) for prompt, problem in zip(prompts, problems, strict=True)]
        return Lookup(self, prompts, problems, keys, self.bank.find(keys))

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        batch_rows: int = 1 << 30,
        progress: Callable[[float], None] = lambda _: None,
        fixed: bool = False,
    ) -> Completions:
        """Sample the reference's G completions of each prompt m, in rows m·G + g."""
        config = self.config.rollout
        rows = [Row(number, adapter=False) for number in range(len(prompts)) for _ in range(config.group_size)]
        seeds = [derive_seed(self.config.run.seed, "reference", _digest(list(prompt))) for prompt in prompts]
        numbers = torch.cat([uniforms(config.group_size, config.max_new_tokens, seed) for seed in seeds])
        sampling = Sampling.of(config)
        return decode(self.policy, prompts, rows, config.max_new_tokens, sampling, numbers, batch_rows, progress, fixed)


@dataclass(frozen=True)
class Lookup:
    """A step's prompts and problems, their keys, and the groups found in the cache."""

    reference: BankedReference
    prompts: Sequence[Sequence[int]]
    problems: Sequence[Problem]
    keys: Sequence[str]
    groups: Mapping[str, Group]

    @property
    def missing(self) -> list[int]:
        """Return the indices of the prompts that must be sampled. A prompt that occurs twice is sampled once."""
        first = {key: place for place, key in reversed(list(enumerate(self.keys)))}
        return sorted(place for key, place in first.items() if key not in self.groups)

    def draw(self, batch_rows: int, progress: Callable[[float], None], fixed: bool = False) -> list[Drawn]:
        """Sample the missing prompts' completions; an empty list if none is missing."""
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
        """Return the reference's completions of the whole step, in rows p·G + g.

        ``scored`` are the scored completions from ``draw``, which are stored in the cache if ``keep`` is True.
        """
        size, missing = self.reference.config.rollout.group_size, self.missing
        # Compute the keys again, since a reward may have been fixed after the lookup.
        new = {
            self.reference.key(self.prompts[place], self.problems[place]): scored[m * size : (m + 1) * size]
            for m, place in enumerate(missing)
        }
        standing = self.reference.bank.keep(new) if keep else new
        kept = {self.keys[place]: standing[key] for place, key in zip(missing, new, strict=True)}
        groups = {**self.groups, **kept}
        return [one for key in self.keys for one in groups[key]]


def _weights(start: StartWeights) -> str:
    """Return a digest of the weights of the reference's adapter."""
    found = hashlib.sha256()
    for pair in start.values():
        for value in pair:
            found.update(value.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
