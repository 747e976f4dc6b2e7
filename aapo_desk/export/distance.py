"""Measure how far an export's predictions are from those of the model it was made from, and define the limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from aapo_desk.models.policy import Policy

PROBED_PROMPTS = 16
PROBED_TOKENS = 16
"""Compared tokens per answer. The logits of all of them are in memory at once: 4 bytes per token of the vocabulary."""


@dataclass(frozen=True)
class Probe:
    """Prompts of the run, the greedy answers of base plus adapter, and the logits of these answers."""

    prompts: Sequence[list[int]]
    answers: Sequence[list[int]]
    logits: Tensor
    """[N, V] float32 on the CPU: the logits that predict each token of the answers, one answer after the other."""


@dataclass(frozen=True)
class Distance:
    """The distance between the next-token distributions of two models at the same N positions.

    kl: the mean of KL(expected || found), in nats. top1: the fraction of positions with the same most likely token.
    max_abs: the largest difference of two logits after each row's mean is subtracted (a constant changes no
    probability).
    """

    kl: float
    top1: float
    max_abs: float
    tokens: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Bound:
    """The limits of a distance: a larger KL or a lower agreement means that the export is broken."""

    kl: float
    top1: float

    def breaches(self, found: Distance, against: str) -> list[str]:
        """Return in words which limits are exceeded. A value of NaN exceeds every limit."""
        broken = []
        if not found.kl <= self.kl:
            broken.append(f"its KL divergence from {against} is {found.kl:.3g} nats; at most {self.kl:g} is allowed")
        if not found.top1 >= self.top1:
            broken.append(
                f"it agrees with {against} on {found.top1:.1%} of the tokens; at least {self.top1:.0%} is required"
            )
        return broken

    def as_json(self) -> dict[str, float]:
        return asdict(self)


BOUNDS = {
    # The same weights are used in the same computation; only the kernels may differ.
    "adapter": Bound(kl=1e-3, top1=0.99),
    # Each weight is rounded once to 16 bits. In addition, llama.cpp keeps keys and values in 16 bits.
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
"""The limits for a quantized GGUF file compared with its f16 file.

They are wide: they only need to separate a broken file from one that has lost precision."""


def distance(expected: Tensor, found: Tensor) -> Distance:
    """Return the distance between two logits [N, V]. The vocabulary of ``found`` may be padded (as in some formats).

    Raises ValueError if the shapes do not match.
    """
    found = found[:, : expected.shape[1]]
    if found.shape != expected.shape:
        raise ValueError(f"logits of shape {tuple(found.shape)} cannot be compared with {tuple(expected.shape)}")
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
    """Return the logits [N, V] that predict each token of ``answers``.

    Each answer is computed after its prompt in a batch of its own, without a KV cache.
    """
    policy.model.eval()
    rows = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([[*prompt, *answer]], device=policy.device)
        hidden = policy.decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
        rows.append(policy.logits(hidden[len(prompt) - 1 : -1]).float().cpu())
    return torch.cat(rows)
