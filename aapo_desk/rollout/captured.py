"""Static-shape decode: one decode step over buffers at fixed addresses, which CUDA captures as a graph.

Decoding a small 4-bit model is bound by kernel launches, not by arithmetic, and a CUDA graph launches the whole step at
once. So nothing in a step waits for the device or branches on its values. Every ``STEPS_BETWEEN_LOOKS`` steps the host
checks how many rows have not ended; if they are half of the rows or fewer, they are moved to the front of the buffers
and a smaller graph is captured. Until then rows that have ended are computed too, and their results are discarded.

A graph attends to a fixed part of the KV cache, and on a small GPU a step takes as long to read that part as to read
the weights. So the first graph covers the prompts and a quarter of the slots for new tokens, and each following graph
covers a quarter more.

Shapes: R rows, n of them computed, T tokens, W slots in the cache, of which a step attends to the first ``seen``.
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
"""The number of parts in which the slots for new tokens become visible. Each part needs a capture."""
LEAST_PART = 64
"""The smallest part, in slots. With smaller ones a capture takes longer than it saves."""
ALIGNMENT = 8
"""The length of a mask must be a multiple of this, else attention copies the mask in every layer."""


@dataclass(frozen=True)
class Start:
    """The state of decoding after the prefill: KV cache and logits of the first tokens. Rows do not share memory."""

    cache: DynamicCache
    logits: Tensor
    """[R, V]"""
    attention: Tensor
    """[R, filled], 0 at padding"""
    position: Tensor
    """[R], the position of the last token in the cache"""
    adapter: Tensor
    """[R] bool"""
    greedy: Tensor | None
    """[R] bool"""
    uniforms: Tensor
    """[R, T]"""
    limits: Tensor | None = None
    """[R], the maximum number of tokens of each row; None: T for every row"""


class CaptureError(Exception):
    """The decode step cannot be captured as a CUDA graph; the message gives the reason. The batch's results are lost.

    Never raised for out of memory: torch's own error is raised for that.
    """


class FixedLayer(DynamicLayer):
    """A cache layer over the first ``rows`` rows of a ``RoomyLayer``'s buffers, at fixed addresses.

    A new token is written to the slot whose index is in the tensor ``place``.
    """

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
        """Move these rows to the front, and drop all others."""
        for buffer in self.buffers:
            buffer[: len(rows)] = buffer[rows]
        self.rows = len(rows)


class FixedBatch:
    """A batch of rows that are decoded together by static-shape decode, with state and results on the device."""

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
        """Memory that a step takes while it runs; the graphs share it, since only one runs at a time."""
        self.take(start.logits)

    def take(self, logits: Tensor) -> None:
        """Draw the next token of each computed row from its logits [n, V], and record it if the row has not ended."""
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
        ends = (tokens[:, None] == self.eos).any(1)  # torch.isin sorts large inputs, and waits for the device
        self.ended.index_put_((row,), self.ended[row] | (alive & ends))
        self.step.add_(1)
        if self.limits is not None:
            ends |= self.limits[row] <= self.step
        self.alive.logical_and_(~ends)

    def advance(self) -> None:
        """Run one decode step: compute the rows' last tokens and draw the next ones."""
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
        """Drop the rows that have ended if they are at least half of the computed ones; return whether it did so."""
        living = self.alive.nonzero().squeeze(1)
        if not 0 < 2 * len(living) <= len(self.alive):
            return False
        for layer in self.layers:
            layer.keep(living)
        for name in ("visible", "position", "adapter", "row", "alive", "next"):
            setattr(self, name, getattr(self, name)[living].clone())
        return True

    def see(self, tokens: int) -> bool:
        """Make the slots of the first ``tokens`` new tokens visible, rounded up to whole parts.

        Returns whether that changes the visible length. ``tokens`` must not be less than in an earlier call.
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
        """Decode until every row has ended. ``capture`` uses CUDA graphs, and needs CUDA."""
        width = self.uniforms.shape[1]
        advance: Callable[[], None] | None = None
        done = 1
        while done < width and bool(self.alive.any()):
            last = min(done + STEPS_BETWEEN_LOOKS, width)
            fewer, wider = self.shrink(), self.see(last - 1)  # the last token drawn is not fed back
            if advance is None or fewer or wider:
                advance = self.captured(known=advance is not None and not fewer) if capture else self.advance
            for _ in range(last - done):
                advance()
            done = last
            progress(done / width)

    def captured(self, known: bool = False) -> Callable[[], None]:
        """Capture ``advance`` as a CUDA graph over the current buffers, and return its replay function.

        ``known`` means that it has been captured for this number of rows before, so that no warm-up step is needed.
        Raises CaptureError if it cannot be captured, and torch's own error if it runs out of memory.
        """
        state = [self.position, self.visible, self.place, self.tokens, self.logps, self.entropy, self.lengths]
        state += [self.next, self.alive, self.ended, self.step]
        before = [value.clone() for value in state]
        try:
            graph, side = torch.cuda.CUDAGraph(), _side_stream()
            if not known:
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):  # libraries initialise at the first call, which cannot be captured
                    self.advance()
                torch.cuda.current_stream().wait_stream(side)
                for value, kept in zip(state, before, strict=True):
                    value.copy_(kept)  # the cache slot needs no reset: the next step overwrites it
            with torch.cuda.graph(graph, pool=self.pool, stream=side):
                self.advance()
        except RuntimeError as error:
            if ran_out(error):
                raise
            raise CaptureError(next(iter(str(error).splitlines()), "") or type(error).__name__) from error
        return graph.replay


@functools.cache
def _side_stream() -> torch.cuda.Stream:
    """Return the single stream used for all captures: cuBLAS keeps a workspace for every stream that it has used."""
    return torch.cuda.Stream()
