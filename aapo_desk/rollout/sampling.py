"""Draw tokens by inverting the cumulative distribution with uniforms given for each (row, position).

The tokens drawn for a row depend on that row alone, so splitting the batch changes nothing except floating-point noise.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from aapo_desk.config import RolloutConfig


@dataclass(frozen=True)
class Sampling:
    """The temperature (0: greedy), the nucleus sampling threshold (1: all tokens) and top-k (0: all tokens)."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    @classmethod
    def of(cls, config: RolloutConfig) -> Sampling:
        return cls(config.temperature, config.top_p, config.top_k)


def derive_seed(seed: int, *parts: int | str) -> int:
    """Return a seed for one purpose within a run: the same in every process, unrelated to those of other purposes.

    No random state is carried from step to step, so a resumed run draws the same as an uninterrupted one.
    """
    text = ":".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def uniforms(rows: int, width: int, seed: int) -> Tensor:
    """Return uniforms in [0, 1), [rows, width] on the CPU, determined by the seed alone."""
    return torch.rand(rows, width, generator=torch.Generator().manual_seed(seed))


def draw(logits: Tensor, uniform: Tensor, greedy: Tensor | None, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens [R], their log-probs [R] and the distribution's entropy [R] in nats, from logits [R, V].

    ``uniform`` [R] determines the tokens; ``greedy`` [R] bool rows take the most likely token instead (None: no row
    does). Log-probs and entropy are those of the distribution at the temperature, before top-k and top-p. Nothing here
    waits for a GPU.
    """
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / (sampling.temperature or 1.0)
    logps = scaled.log_softmax(1)
    probabilities = logps.exp()
    entropy = -torch.linalg.vecdot(probabilities, logps.clamp_(min=-1e9))  # 0 times -inf would be NaN
    if sampling.temperature == 0:
        tokens = logps.argmax(1)
    else:
        tokens = _invert(probabilities, uniform.to(probabilities.dtype), sampling)
        if greedy is not None:
            tokens = torch.where(greedy, logps.argmax(1), tokens)
    return tokens, logps.gather(1, tokens[:, None]).squeeze(1), entropy


def _invert(probabilities: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """Return the first token at which the cumulative probability exceeds ``uniform``."""
    order = None
    if sampling.top_k or sampling.top_p < 1:
        probabilities, order = probabilities.sort(stable=True, dim=1, descending=True)
        rank = torch.arange(probabilities.shape[1], device=probabilities.device)
        before = probabilities.cumsum(1) - probabilities
        keep = before < sampling.top_p
        if sampling.top_k:
            keep &= rank < sampling.top_k
        keep[:, 0] = True
        probabilities = torch.where(keep, probabilities, 0.0)
    cumulative = probabilities.cumsum(1)
    total = cumulative[:, -1:]
    # The threshold must be strictly below the total, else rounding could pick a token of probability 0 after the last
    # one with a positive probability.
    threshold = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, threshold, right=True)
    tokens = tokens.clamp(max=probabilities.shape[1] - 1)  # for NaN it is out of range, a fatal error on a GPU
    if order is not None:
        tokens = order.gather(1, tokens)
    return tokens.squeeze(1)
