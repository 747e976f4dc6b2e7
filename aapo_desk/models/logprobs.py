"""Log-probs of given completions, with one pass over a prompt for all completions that share it.

A pack is one row [prompt][c1]...[ck]. Each completion attends to the prompt and to itself, and its positions start
right after the prompt. A pack with one completion is a plain, dense row, which needs no mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aapo_desk.memory import LOGITS_AT_ONCE
from aapo_desk.models.policy import Policy
from aapo_desk.models.shadow import even_length

SHARING_MODELS = frozenset({"llama", "qwen2", "qwen3", "smollm3", "phi3", "granitemoehybrid"})
"""Models that accept the same token-by-token attention mask for all their layers, and keep no other state."""


@dataclass(frozen=True)
class Pack:
    """One prompt and the completions that follow it in the same row, as token ids."""

    prompt: Sequence[int]
    completions: Sequence[Sequence[int]]

    @property
    def tokens(self) -> int:
        return len(self.prompt) + sum(map(len, self.completions))


def can_share(policy: Policy) -> bool:
    """Return whether this model can compute several completions of one prompt in one row.

    The caller must check for dropout.
    """
    config = policy.causal.config
    window = getattr(config, "sliding_window", None)
    whole = window is None or window >= config.max_position_embeddings
    recurrent = "linear_attention" in (getattr(config, "layer_types", None) or [])
    return str(config.model_type) in SHARING_MODELS and whole and not recurrent and not policy.patched


def pack_logps(policy: Policy, packs: Sequence[Pack], width: int, temperature: float = 1.0) -> Tensor:
    """Return the log-probs [rows, width] of the completions' tokens, in the packs' order; 0 past a completion's end.

    They are those of the distribution that was sampled from: logits divided by ``temperature``. Packs are padded on the
    right, which no token attends to.
    """
    device = policy.device
    longest = max(pack.tokens for pack in packs)
    if policy.shadow and policy.shadow.packed:
        longest = even_length(len(packs), longest)
    ids = torch.full((len(packs), longest), policy.pad_id, device=device)
    # For each token of a completion: its pack, its index there, and the index whose hidden state predicts it.
    pack_of: list[int] = []
    place: list[int] = []
    before: list[int] = []
    row_of: list[int] = []
    position: list[int] = []
    row = 0
    for number, pack in enumerate(packs):
        flat = [*pack.prompt, *(token for completion in pack.completions for token in completion)]
        ids[number, : len(flat)] = torch.tensor(flat, device=device)
        start = len(pack.prompt)
        for completion in pack.completions:
            size = len(completion)
            pack_of += [number] * size
            place += range(start, start + size)
            before += [len(pack.prompt) - 1, *range(start, start + size - 1)]
            row_of += [row] * size
            position += range(size)
            start += size
            row += 1
    hidden = _hidden(policy, ids, packs)
    index = torch.tensor([pack_of, place, before, row_of, position], device=device)
    # Not hidden[index]: its backward pass adds in an order that depends on the threads, and a resumed run must not
    # differ from an uninterrupted one.
    predicting = hidden.flatten(0, 1).index_select(0, index[0] * longest + index[2])
    flat_logps = head_logps(policy, predicting, ids[index[0], index[1]], temperature)
    return flat_logps.new_zeros(row, width).index_put((index[3], index[4]), flat_logps)


def _hidden(policy: Policy, ids: Tensor, packs: Sequence[Pack]) -> Tensor:
    """Return the hidden states [packs, longest, H]."""
    settings: dict[str, Tensor] = {}
    # If every pack is dense, no mask is needed: causal attention never sees the padding, which is on the right.
    if any(len(pack.completions) > 1 for pack in packs):
        mask, positions = block_mask(packs, ids.shape[1])
        settings = {"attention_mask": mask.to(policy.device), "position_ids": positions.to(policy.device)}
    hidden: Tensor = policy.decoder(input_ids=ids, use_cache=False, **settings).last_hidden_state
    return hidden


def block_mask(packs: Sequence[Pack], longest: int) -> tuple[Tensor, Tensor]:
    """Return the attention mask [packs, 1, longest, longest] bool, and the positions [packs, longest].

    A token attends to the prompt (block 0), to the tokens before it in its own block, and to itself. Padding is a block
    of its own.
    """
    blocks = torch.full((len(packs), longest), -1)
    positions = torch.zeros(len(packs), longest, dtype=torch.long)
    for number, pack in enumerate(packs):
        start = 0
        for block, part in enumerate([pack.prompt, *pack.completions]):
            end = start + len(part)
            blocks[number, start:end] = block
            first = 0 if block == 0 else len(pack.prompt)
            positions[number, start:end] = torch.arange(first, first + len(part))
            start = end
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    same = blocks[:, :, None] == blocks[:, None, :]
    prompt = (blocks[:, None, :] == 0) & (blocks[:, :, None] >= 0)
    return ((same | prompt) & causal)[:, None], positions


def head_logps(policy: Policy, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return the log-probs [N] of ``targets`` [N] from hidden states [N, H], with one chunk's logits in memory at a
    time."""

    def chunk(hidden: Tensor, targets: Tensor) -> Tensor:
        logits = policy.logits(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
        return logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(1)

    head = policy.causal.get_output_embeddings()
    size = max(1, LOGITS_AT_ONCE[policy.device.type] // head.weight.shape[0])
    pieces = zip(hidden.split(size), targets.split(size), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([chunk(h, t) for h, t in pieces])
    if any(parameter.requires_grad for parameter in head.parameters()):
        return torch.cat([checkpoint(chunk, h, t, use_reentrant=False) for h, t in pieces])
    if policy.head_is_plain:
        return torch.cat([_plain_head(policy, h, t, temperature) for h, t in pieces])
    return torch.cat([_frozen_head(chunk, h, t) for h, t in pieces])


def _frozen_head(chunk: Callable[[Tensor, Tensor], Tensor], hidden: Tensor, targets: Tensor) -> Tensor:
    """Compute a chunk's log-probs together with their gradient, so that no logits are kept for the backward pass.

    A token's log-prob depends only on its own hidden state, so the gradient of the sum contains each token's own.
    """
    leaf = hidden.detach().requires_grad_()
    logps = chunk(leaf, targets)
    logps.sum().backward(inputs=[leaf])
    slope, logps = leaf.grad, logps.detach()
    assert slope is not None
    return _with_slope(logps, slope, hidden)


def _plain_head(policy: Policy, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Do the same as ``_frozen_head`` for a head that is a single matrix product, with one tensor of the logits' size
    instead of several.

    log p = z_t - log sum exp z        d log p / dh = (w_t - sum exp(z) w / sum exp(z)) / temperature
    """
    with torch.no_grad():
        logits = policy.logits(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).div_(temperature)
        top = logits.amax(1, keepdim=True)
        chosen = logits.gather(1, targets[:, None]) - top
        odds = logits.sub_(top).exp_()
        total = odds.sum(1, keepdim=True)
        logps = (chosen - total.log()).squeeze(1)
        pull = policy.head_backward(odds.to(hidden.dtype)).to(total) / total
        slope = (policy.causal.get_output_embeddings().weight[targets].to(total) - pull) / temperature
    return _with_slope(logps, slope, hidden)


def _with_slope(logps: Tensor, slope: Tensor, hidden: Tensor) -> Tensor:
    """Return ``logps`` [N] with gradients by the rows of ``hidden`` [N, H] equal to the rows of ``slope`` [N, H]."""
    around = hidden - hidden.detach()  # zero, but carries a gradient
    return logps + (slope.to(logps) * around.to(logps)).sum(1)
