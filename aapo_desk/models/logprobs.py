"""Log-probs of given completions: the dense path, one row [prompt][completion] a completion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aapo_desk.models.policy import Policy

LOGITS_AT_ONCE = 1 << 25
"""Logits held at once by the head, in forward and in backward: 128 MiB in float32."""


def completion_logps(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    width: int,
    temperature: float = 1.0,
) -> Tensor:
    """Log-probs [rows, width] of each completion's tokens after its prompt; 0 past a completion's end.

    Of the distribution that was sampled from: logits divided by ``temperature``. Rows are padded on the right, where
    causal attention never looks, so no mask is needed.
    """
    rows = [[*prompt, *completion] for prompt, completion in zip(prompts, completions, strict=True)]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [policy.pad_id] * (longest - len(row)) for row in rows], device=policy.device)
    hidden = policy.decoder(input_ids=ids, use_cache=False).last_hidden_state

    starts = torch.tensor([len(prompt) for prompt in prompts], device=policy.device)
    lengths = torch.tensor([len(completion) for completion in completions], device=policy.device)
    row, position = (torch.arange(width, device=policy.device) < lengths[:, None]).nonzero(as_tuple=True)
    source = starts[row] + position
    # The hidden state before a token predicts it.
    flat = head_logps(policy, hidden[row, source - 1], ids[row, source], temperature)
    return flat.new_zeros(len(rows), width).index_put((row, position), flat)


def head_logps(policy: Policy, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Log-probs [N] of ``targets`` [N] from hidden states [N, H], with only a chunk's logits in memory at a time."""

    def chunk(hidden: Tensor, targets: Tensor) -> Tensor:
        logits = policy.logits(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
        return logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(1)

    size = max(1, LOGITS_AT_ONCE // policy.causal.get_output_embeddings().weight.shape[0])
    if len(targets) <= size or not torch.is_grad_enabled():
        parts = [chunk(h, t) for h, t in zip(hidden.split(size), targets.split(size), strict=True)]
    else:
        pieces = zip(hidden.split(size), targets.split(size), strict=True)
        parts = [checkpoint(chunk, h, t, use_reentrant=False) for h, t in pieces]
    return torch.cat(parts)
