"""How far an export's predictions are from those of what it was made of, and how far they may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from aapo_desk.models.policy import Policy

PROBED_PROMPTS = 16
PROBED_TOKENS = 16
"""Of each prompt's answer. The logits of all of them are in memory at once, 4 bytes a token of the vocabulary."""


@dataclass(frozen=True)
class Probe:
    """Prompts of the run with the answers that base plus adapter gives greedily, and the logits that led to them."""

    prompts: Sequence[list[int]]
    answers: Sequence[list[int]]
    logits: Tensor
    """[N, V] float32 on the CPU: of each answer's tokens in turn, before they were chosen."""


@dataclass(frozen=True)
class Distance:
    """Between two models' next-token distributions over the same N places.

    kl: the mean of KL(expected || found), in nats. top1: the share of places where the likeliest token is the same.
    max_abs: the largest difference of two logits, each row's mean taken off (a constant changes no probability).
    """

    kl: float
    top1: float
    max_abs: float
    tokens: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Bound:
    """What an export may be off by: a larger KL or a smaller agreement means that it is broken."""

    kl: float
    top1: float

    def breaches(self, found: Distance, against: str) -> list[str]:
        """What is out of bounds, in words. Not a number is out of every bound."""
        broken = []
        if not found.kl <= self.kl:
            broken.append(f"its distributions are {found.kl:.3g} nats (KL) off {against}; at most {self.kl:g} is right")
        if not found.top1 >= self.top1:
            broken.append(f"it agrees with {against} on {found.top1:.1%} of the tokens; {self.top1:.0%} is the least")
        return broken

    def as_json(self) -> dict[str, float]:
        return asdict(self)


BOUNDS = {
    # The same numbers computed in the same way: only kernels may differ.
    "adapter": Bound(kl=1e-3, top1=0.99),
    # Each weight rounded once to 16 bits; llama.cpp besides keeps keys and values in 16 bits.
    "merged": Bound(kl=0.01, top1=0.97),
    "gguf f16": Bound(kl=0.01, top1=0.97),
}
QUANT_BOUNDS = {
    "q8_0": Bound(kl=0.02, top1=0.95),
    "q6_k": Bound(kl=0.05, top1=0.93),
    "q5_k_m": Bound(kl=0.1, top1=0.9),
    "q4_k_m": Bound(kl=0.3, top1=0.8),
    "q3_k_m": Bound(kl=1.0, top1=0.65),
}
"""Of a quantised GGUF file against its f16. Wide: they tell a broken file from one that has merely lost precision."""


def distance(expected: Tensor, found: Tensor) -> Distance:
    """Of two [N, V] logits; a found vocabulary may be padded at its end (some formats do)."""
    found = found[:, : expected.shape[1]]
    if found.shape != expected.shape:
        raise ValueError(f"logits of {tuple(found.shape)} cannot be held against {tuple(expected.shape)}")
    ours, theirs = expected.double().log_softmax(1), found.double().log_softmax(1)
    off = (expected - expected.mean(1, keepdim=True)) - (found - found.mean(1, keepdim=True))
    return Distance(
        kl=float((ours.exp() * (ours - theirs)).sum(1).mean()),
        top1=float((ours.argmax(1) == theirs.argmax(1)).double().mean()),
        max_abs=float(off.abs().max()),
        tokens=len(expected),
    )


@torch.no_grad()
def answer_logits(policy: Policy, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Tensor:
    """Logits [N, V] before each token of ``answers``, each a row of its own behind its prompt, without a cache."""
    policy.model.eval()
    rows = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([[*prompt, *answer]], device=policy.device)
        hidden = policy.decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
        rows.append(policy.logits(hidden[len(prompt) - 1 : -1]).float().cpu())
    return torch.cat(rows)
