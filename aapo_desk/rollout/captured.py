"""Decoding as one step of tensors only, over buffers that stay in place: on CUDA it is captured as a graph.

Decoding a small 4-bit model is bound by launches, not by arithmetic: a graph launches the whole step at once. So
nothing here waits for the device or branches on what it holds. Every ``STEPS_BETWEEN_LOOKS`` steps the host looks how
many rows go on; where half of them or fewer do, they move to the front of the buffers and a smaller graph takes over.
Until then rows that have ended compute along, and what they give is not kept.

A graph sees a fixed part of the cache, and a step on a small card spends as long on reading that as on the weights. So
the first graph sees the prompts and a quarter of the new tokens' places, the next ones a quarter more each.

Shapes: R rows, n of them computed, T tokens, W places in the cache, of which a step sees the first ``seen``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from aapo_desk.models.policy import Policy
from aapo_desk.models.room import ran_out
from aapo_desk.models.rows import RowMask
from aapo_desk.rollout.cache import RoomyLayer
from aapo_desk.rollout.sampling import Sampling, draw

STEPS_BETWEEN_LOOKS = 16
PARTS = 4
"""In how many parts the new tokens' places come to be seen: each part takes a capture."""
LEAST_PART = 64
"""Places: below that a capture takes longer than it saves."""
ALIGNMENT = 8
"""Of what the length of a mask is to be a multiple: attention copies others in every layer."""


@dataclass(frozen=True)
class Start:
    """Where decoding stands behind the prompts: what was read, and the first tokens' logits. Rows share no memory."""

    cache: DynamicCache
    logits: Tensor
    """[R, V]"""
    attention: Tensor
    """[R, filled], 0 at padding"""
    position: Tensor
    """[R], of the last token read"""
    adapter: Tensor
    """[R] bool"""
    greedy: Tensor | None
    """[R] bool"""
    uniforms: Tensor
    """[R, T]"""
    limits: Tensor | None = None
    """[R], tokens of each row at the most; None: T for every row"""


class CaptureError(Exception):
    """The decode step cannot be captured as a CUDA graph; the message gives the reason. Nothing of the batch is kept.

    Never raised for memory that ran out: that is torch's own error.
    """


class FixedLayer(DynamicLayer):
    """The first ``rows`` rows of a roomy layer's buffers; a new token is written at the place that a tensor names."""

    def __init__(self, filled: RoomyLayer, place: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.buffers = filled.buffers
        self.place = place
        self.rows = len(self.buffers[0])
        self.seen = self.buffers[0].shape[2]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = (
            buffer[: self.rows].index_copy_(2, self.place, states)[:, :, : self.seen]
            for buffer, states in zip(self.buffers, (key_states, value_states), strict=True)
        )
        return keys, values

    def get_seq_length(self) -> int:
        return int(self.seen)

    def keep(self, rows: Tensor) -> None:
        """Move these rows to the front, and compute no others from now on."""
        for buffer in self.buffers:
            buffer[: len(rows)] = buffer[rows]
        self.rows = len(rows)


class FixedBatch:
    """Rows that are decoded together, their state and their results, all on the device."""

    def __init__(self, policy: Policy, mask: RowMask, start: Start, sampling: Sampling, cache_name: str) -> None:
        rows, width = start.uniforms.shape
        device = start.logits.device
        self.policy, self.mask, self.sampling, self.cache_name = policy, mask, sampling, cache_name
        self.eos = torch.tensor(policy.eos_ids, device=device)
        self.place = torch.tensor([start.attention.shape[1]], device=device)
        self.cache = start.cache
        self.layers = [FixedLayer(layer, self.place) for layer in self.cache.layers if isinstance(layer, RoomyLayer)]
        self.cache.layers[:] = self.layers
        self.filled, self.seen = start.attention.shape[1], self.layers[0].seen
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.visible = torch.zeros(rows, 1, 1, self.seen, dtype=torch.bool, device=device)
        self.visible[:, 0, 0, : start.attention.shape[1]] = start.attention.bool()
        self.position, self.adapter, self.greedy = start.position.clone(), start.adapter.clone(), start.greedy
        self.uniforms, self.limits = start.uniforms, start.limits
        self.row = torch.arange(rows, device=device)
        self.alive = torch.ones(rows, dtype=torch.bool, device=device)
        self.next = torch.zeros(rows, dtype=torch.long, device=device)
        self.tokens = torch.full((rows, width), policy.pad_id, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)
        self.logps = torch.zeros(rows, width, device=device)
        self.entropy = torch.zeros(rows, width, device=device)
        self.pool: Any = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        """What a step takes while it runs: one graph after the other has it."""
        self.take(start.logits)

    def take(self, logits: Tensor) -> None:
        """Draw the next token of each computed row from its logits [n, V] and note it where the row goes on."""
        row, alive = self.row, self.alive
        uniform = self.uniforms[row].index_select(1, self.step).squeeze(1)
        greedy = None if self.greedy is None else self.greedy[row]
        tokens, logps, entropy = draw(logits, uniform, greedy, self.sampling)
        places = (row, self.step.expand(len(row)))
        self.tokens.index_put_(places, torch.where(alive, tokens, self.policy.pad_id))
        self.logps.index_put_(places, torch.where(alive, logps, 0.0).float())
        self.entropy.index_put_(places, torch.where(alive, entropy, 0.0).float())
        self.lengths.index_add_(0, row, alive.long())
        self.next.copy_(tokens)
        ends = (tokens[:, None] == self.eos).any(1)  # isin of many sorts them, and waits for the device
        self.ended.index_put_((row,), self.ended[row] | (alive & ends))
        self.step.add_(1)
        if self.limits is not None:
            ends |= self.limits[row] <= self.step
        self.alive.logical_and_(~ends)

    def advance(self) -> None:
        """One step: compute the rows' last tokens and draw the next."""
        self.position.add_(1)
        self.visible.index_fill_(3, self.place, True)
        self.mask.hold(self.adapter)
        hidden = self.policy.decoder(
            input_ids=self.next[:, None],
            attention_mask=self.visible[..., : self.seen],
            position_ids=self.position[:, None],
            use_cache=True,
            **{self.cache_name: self.cache},
        ).last_hidden_state
        self.place.add_(1)
        self.take(self.policy.logits(hidden[:, -1]))

    def shrink(self) -> bool:
        """Go on with the living rows alone where they are half of the computed ones or fewer; whether it did."""
        living = self.alive.nonzero().squeeze(1)
        if not 0 < 2 * len(living) <= len(self.alive):
            return False
        for layer in self.layers:
            layer.keep(living)
        for name in ("visible", "position", "adapter", "row", "alive", "next"):
            setattr(self, name, getattr(self, name)[living].clone())
        return True

    def see(self, tokens: int) -> bool:
        """See the places of so many new tokens, rounded up to whole parts, from now on; whether that changes anything.

        Fewer than before are never asked for.
        """
        places, width = self.visible.shape[3], self.uniforms.shape[1]
        part = max(LEAST_PART, -(-width // PARTS))
        seen = self.filled + -(-tokens // part) * part
        seen = min(places, -(-seen // ALIGNMENT) * ALIGNMENT)
        changed = seen != self.seen
        self.seen = seen
        for layer in self.layers:
            layer.seen = seen
        return changed

    def run(self, capture: bool, progress: Callable[[float], None]) -> None:
        """To the end of every row. ``capture`` on CUDA."""
        width = self.uniforms.shape[1]
        advance: Callable[[], None] | None = None
        done = 1
        while done < width and bool(self.alive.any()):
            last = min(done + STEPS_BETWEEN_LOOKS, width)
            fewer, wider = self.shrink(), self.see(last - 1)  # the last token drawn is not read
            if advance is None or fewer or wider:
                advance = self.captured(known=advance is not None and not fewer) if capture else self.advance
            for _ in range(last - done):
                advance()
            done = last
            progress(done / width)

    def captured(self, known: bool = False) -> Callable[[], None]:
        """Return ``advance`` as a CUDA graph over the present buffers.

        ``known``: it has been captured for this number of rows before. Raises CaptureError if it cannot be captured,
        and torch's own error if memory runs out.
        """
        state = [self.position, self.visible, self.place, self.tokens, self.logps, self.entropy, self.lengths]
        state += [self.next, self.alive, self.ended, self.step]
        before = [value.clone() for value in state]
        try:
            graph, side = torch.cuda.CUDAGraph(), _side_stream()
            if not known:
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):  # libraries set themselves up at the first call: it cannot be captured
                    self.advance()
                torch.cuda.current_stream().wait_stream(side)
                for value, kept in zip(state, before, strict=True):
                    value.copy_(kept)  # the place in the cache that was written is written again
            with torch.cuda.graph(graph, pool=self.pool, stream=side):
                self.advance()
        except RuntimeError as error:
            if ran_out(error):
                raise
            raise CaptureError(next(iter(str(error).splitlines()), "") or type(error).__name__) from error
        return graph.replay


@functools.cache
def _side_stream() -> torch.cuda.Stream:
    """The one stream of all captures: cuBLAS keeps a workspace of each stream that it has worked on, for ever."""
    return torch.cuda.Stream()
