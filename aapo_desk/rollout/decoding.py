"""Grouped decoding: one prefill per prompt for all its completions, and one for the beginning that all prompts share.

Policy and reference rows share a batch and are distinguished by a row mask on the adapter. Rows that have ended are
removed from the batch and from the KV cache.

Shapes: R rows (completions), S stems (a prompt prefilled with the adapter on or off), T tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aapo_desk.models.logprobs import can_share
from aapo_desk.models.policy import Policy
from aapo_desk.models.rows import RowMask
from aapo_desk.rollout.cache import RoomyLayer, RowCache, roomy_cache
from aapo_desk.rollout.captured import ALIGNMENT, FixedBatch, Start
from aapo_desk.rollout.sampling import Sampling, draw

LEAST_COMMON, LEAST_SHARING = 8, 4
"""The least number of common tokens, and of prompts, for which the common beginning gets a prefill of its own."""


@dataclass(frozen=True)
class Row:
    """One completion to decode: the index of its prompt, whether the adapter is on, and whether it is greedy."""

    prompt: int
    adapter: bool = True
    greedy: bool = False


@dataclass(frozen=True)
class Completions:
    """The result of decoding. The token that ends a completion belongs to it; everything after it is padding."""

    tokens: Tensor
    """[R, T]"""
    lengths: Tensor
    """[R]"""
    ended: Tensor
    """[R] bool; False: truncated at the maximum length"""
    logps: Tensor
    """[R, T], 0 past the end"""
    entropy: Tensor
    """[R, T] nats, 0 past the end"""

    def row(self, index: int) -> list[int]:
        """Return a completion's token ids, including the one that ended it."""
        return [int(token) for token in self.tokens[index, : int(self.lengths[index])]]

    def content(self, index: int) -> list[int]:
        """Return a completion's token ids without the one that ended it, which is not always flagged as special."""
        tokens = self.row(index)
        return tokens[:-1] if bool(self.ended[index]) else tokens

    def take(self, rows: Sequence[int]) -> Completions:
        index = torch.tensor(rows, dtype=torch.long)
        return Completions(*(getattr(self, name)[index] for name in ("tokens", "lengths", "ended", "logps", "entropy")))


@dataclass(frozen=True)
class NewTokens:
    """The tokens that one step drew for the A rows that had not ended; on the CPU."""

    rows: Tensor
    """[A] indices of the rows"""
    tokens: Tensor
    """[A]"""
    logps: Tensor
    """[A]"""
    entropy: Tensor
    """[A] nats"""
    ended: Tensor
    """[A] bool: whether the token ends its row"""


@torch.no_grad()
def decode(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Row],
    max_new_tokens: int,
    sampling: Sampling,
    uniforms: Tensor,
    batch_rows: int = 1 << 30,
    progress: Callable[[float], None] = lambda _: None,
    fixed: bool = False,
    limits: Tensor | None = None,
) -> Completions:
    """Complete ``prompts`` (token ids) for each of ``rows``; ``uniforms`` [R, T] determine the tokens drawn.

    ``batch_rows`` is the maximum batch size. ``progress`` is called with the share of the work that is done, 0 to 1.
    ``fixed`` uses static-shape decode if the model supports it (``can_be_fixed``), captured as a CUDA graph on CUDA.
    ``limits`` [R] is the maximum number of tokens of each row. Results are on the CPU. Raises CaptureError.
    """
    width = max_new_tokens
    result = Completions(
        torch.full((len(rows), width), policy.pad_id),
        torch.zeros(len(rows), dtype=torch.long),
        torch.zeros(len(rows), dtype=torch.bool),
        torch.zeros(len(rows), width),
        torch.zeros(len(rows), width),
    )
    policy.model.eval()
    done = 0
    for side in _sides(policy, rows):
        with policy.adapter_on_rows() if policy.masks_rows else _alone(policy, rows[side[0]].adapter) as mask:
            for part in (side[start : start + batch_rows] for start in range(0, len(side), batch_rows)):

                def report(share: float, done: int = done, size: int = len(part)) -> None:
                    progress((done + share * size) / len(rows))

                batch = _Batch(policy, prompts, [rows[row] for row in part], mask)
                run = batch.run_fixed if fixed and can_be_fixed(policy) else batch.run
                into = result.take(part)
                run(sampling, uniforms[part], into, report, None if limits is None else limits[part])
                for name, value in vars(into).items():
                    getattr(result, name)[part] = value
                done += len(part)
    return result


@torch.no_grad()
def stream(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Row],
    max_new_tokens: int,
    sampling: Sampling,
    uniforms: Tensor,
) -> Generator[NewTokens]:
    """Yield the same tokens as ``decode`` step by step, as they are drawn. The caller may stop between two steps.

    If policy and reference rows must not share a batch, the policy's come first, then the reference's.
    """
    policy.model.eval()
    for side in _sides(policy, rows):
        with policy.adapter_on_rows() if policy.masks_rows else _alone(policy, rows[side[0]].adapter) as mask:
            batch = _Batch(policy, prompts, [rows[row] for row in side], mask)
            places = torch.tensor(side)
            for new in batch.steps(sampling, uniforms[places], max_new_tokens):
                yield replace(new, rows=places[new.rows])


@torch.no_grad()
def ends(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Row],
    width: int,
    sampling: Sampling,
    fixed: bool = False,
) -> None:
    """Run the prefill and the last decode step of a rollout of these rows, to measure its memory. Returns no results.

    The prefill allocates the cache for ``width`` new tokens. The last of these is computed as if the others were in the
    cache; if the cache has layers that cannot be filled in this way (sliding window or recurrent state), the first.
    """
    policy.model.eval()
    side = _sides(policy, rows)[0]
    with policy.adapter_on_rows() if policy.masks_rows else _alone(policy, rows[side[0]].adapter) as mask:
        batch = _Batch(policy, prompts, [rows[row] for row in side], mask)
        batch.common = 0  # these prompts represent prompts that have nothing in common
        if fixed and can_be_fixed(policy):
            batch.ends_fixed(sampling, width)
        else:
            batch.ends(sampling, width)


def _sides(policy: Policy, rows: Sequence[Row]) -> list[list[int]]:
    """Return the indices of the rows, grouped into those that may share a batch."""
    every = range(len(rows))
    if policy.masks_rows:
        return [list(every)] if rows else []
    sides = [[row for row in every if rows[row].adapter == adapter] for adapter in (True, False)]
    return [side for side in sides if side]


@contextmanager
def _alone(policy: Policy, adapter: bool) -> Iterator[RowMask]:
    """Use the model's own forward pass, with the adapter on or off for all rows; the yielded mask is not used."""
    with nullcontext() if adapter else policy.as_reference():
        yield RowMask()


def can_be_fixed(policy: Policy) -> bool:
    """Return whether the model supports static-shape decode: it accepts a full attention mask, and its cache has only
    keys and values."""
    layers = roomy_cache(policy.causal.config, 1).layers
    return can_share(policy) and all(isinstance(layer, RoomyLayer) for layer in layers)


class _Batch:
    """Rows that are decoded together."""

    def __init__(self, policy: Policy, prompts: Sequence[Sequence[int]], rows: Sequence[Row], mask: RowMask) -> None:
        self.policy = policy
        self.mask = mask
        stems = list(dict.fromkeys((row.prompt, row.adapter) for row in rows))
        self.stem_prompts = [prompts[prompt] for prompt, _ in stems]
        self.common = _common_start(self.stem_prompts) if can_be_fixed(policy) else 0
        device = policy.device
        self.stem_adapter = torch.tensor([adapter for _, adapter in stems], device=device)
        self.stem_of_row = torch.tensor([stems.index((row.prompt, row.adapter)) for row in rows], device=device)
        greedy = [row.greedy for row in rows]
        self.greedy = torch.tensor(greedy, device=device) if any(greedy) else None
        # transformers 5.24 renamed the argument and warns about the old name.
        known = inspect.signature(type(policy.decoder).forward).parameters
        self.cache_name = "cache" if "cache" in known else "past_key_values"
        self.patched = policy.patched

    def run(
        self,
        sampling: Sampling,
        uniforms: Tensor,
        result: Completions,
        progress: Callable[[float], None],
        limits: Tensor | None,
    ) -> None:
        """Decode into ``result`` until every row has ended or reached its maximum length."""
        width = result.tokens.shape[1]
        for step, new in enumerate(self.steps(sampling, uniforms, width, limits)):
            result.tokens[new.rows, step] = new.tokens
            result.logps[new.rows, step] = new.logps
            result.entropy[new.rows, step] = new.entropy
            result.lengths[new.rows] = step + 1
            result.ended[new.rows] = new.ended
            progress((step + 1) / width)

    def steps(
        self, sampling: Sampling, uniforms: Tensor, width: int, limits: Tensor | None = None
    ) -> Iterator[NewTokens]:
        """Yield one token of each row that has not ended, up to ``width`` times, or ``limits`` [R] times for a row."""
        eos = torch.tensor(self.policy.eos_ids, device=self.policy.device)
        cache, logits, attention, position = self._prefill(width)
        alive = torch.arange(len(self.stem_of_row))
        for step in range(width):
            here = alive.to(self.policy.device)
            uniform = uniforms[alive, step].to(self.policy.device)
            greedy = None if self.greedy is None else self.greedy[here]
            tokens, logps, entropy = draw(logits, uniform, greedy, sampling)
            ended = torch.isin(tokens, eos).cpu()
            yield NewTokens(alive, tokens.cpu(), logps.float().cpu(), entropy.float().cpu(), ended)
            done = ended if limits is None else ended | (limits[alive] <= step + 1)
            if step + 1 == width or bool(done.all()):
                return
            if bool(done.any()):
                stay = (~done).nonzero().squeeze(1)
                alive, stay = alive[stay], stay.to(self.policy.device)
                cache.batch_select_indices(stay)
                tokens, attention, position = tokens[stay], attention[stay], position[stay]
            position = position + 1
            attention = torch.cat([attention, attention.new_ones(len(alive), 1)], 1)
            logits = self._forward(cache, tokens[:, None], attention, position[:, None], self._adapter(alive))

    def run_fixed(
        self,
        sampling: Sampling,
        uniforms: Tensor,
        result: Completions,
        progress: Callable[[float], None],
        limits: Tensor | None,
    ) -> None:
        """Do the same as ``run`` by static-shape decode."""
        device = self.policy.device
        cache, logits, attention, position = self._prefill(result.tokens.shape[1], ALIGNMENT)
        adapter = self.stem_adapter[self.stem_of_row]
        ends = None if limits is None else limits.to(device)
        start = Start(cache, logits, attention, position, adapter, self.greedy, uniforms.to(device), ends)
        batch = FixedBatch(self.policy, self.mask, start, sampling, self.cache_name)
        batch.run(device.type == "cuda", progress)
        for name, value in vars(result).items():
            value.copy_(getattr(batch, name))

    def ends(self, sampling: Sampling, width: int) -> None:
        """Compute the first and the last of ``width`` tokens of every row."""
        cache, logits, attention, position = self._prefill(width)
        rows = len(self.stem_of_row)
        uniform = torch.zeros(rows, device=self.policy.device)
        tokens, *_ = draw(logits, uniform, self.greedy, sampling)
        del logits
        if width == 1:
            return
        more = 1
        layers = [layer for layer in cache.layers if isinstance(layer, RoomyLayer)]
        if len(layers) == len(cache.layers):
            more = width - 1
            for layer in layers:
                layer.skip_to(attention.shape[1] + more - 1)
        attention = torch.cat([attention, attention.new_ones(rows, more)], 1)
        adapter = self._adapter(torch.arange(rows))
        logits = self._forward(cache, tokens[:, None], attention, position[:, None] + more, adapter)
        draw(logits, uniform, self.greedy, sampling)

    def ends_fixed(self, sampling: Sampling, width: int) -> None:
        """Do the same as ``ends`` by static-shape decode, in which every step covers the whole cache."""
        device = self.policy.device
        cache, logits, attention, position = self._prefill(width, ALIGNMENT)
        adapter = self.stem_adapter[self.stem_of_row]
        uniforms = torch.zeros(len(adapter), width, device=device)
        start = Start(cache, logits, attention, position, adapter, self.greedy, uniforms)
        batch = FixedBatch(self.policy, self.mask, start, sampling, self.cache_name)
        if width > 1:
            advance = batch.captured() if device.type == "cuda" else batch.advance
            advance()

    def _adapter(self, rows: Tensor) -> Tensor:
        return self.stem_adapter[self.stem_of_row[rows.to(self.policy.device)]]

    def _prefill(self, room: int, alignment: int = 1) -> tuple[RowCache, Tensor, Tensor, Tensor]:
        """Prefill each stem once, then repeat its cache for its rows. Returns cache, logits, attention and positions.

        The cache has room for ``room`` more tokens, rounded up to a multiple of ``alignment``. What all prompts begin
        with, such as a system prompt, is prefilled once per side for all of them.
        """
        device, pad = self.policy.device, self.policy.pad_id
        common = self.common
        rests = [list(prompt[common:]) for prompt in self.stem_prompts]
        longest = max(map(len, rests))
        length = common + longest + room
        cache = roomy_cache(self.policy.causal.config, length + -length % alignment)
        if common:
            self._read_start(cache, self.stem_prompts[0][:common])
        ids = torch.tensor([[pad] * (longest - len(rest)) + rest for rest in rests], device=device)
        lengths = torch.tensor([len(rest) for rest in rests], device=device)
        seen = (torch.arange(longest, device=device) >= longest - lengths[:, None]).long()
        attention = torch.cat([seen.new_ones(len(rests), common), seen], 1)
        positions = (seen.cumsum(1) - 1).clamp(min=0) + common
        logits = self._forward(cache, ids, attention, positions, self.stem_adapter)
        cache.batch_select_indices(self.stem_of_row)
        last = common + lengths - 1
        return cache, logits[self.stem_of_row], attention[self.stem_of_row], last[self.stem_of_row]

    def _read_start(self, cache: RowCache, start: Sequence[int]) -> None:
        """Prefill the tokens ``start`` once per side that the stems need (adapter on, off); then repeat per stem."""
        sides, side_of_stem = self.stem_adapter.unique(return_inverse=True)
        ids = torch.tensor([list(start)] * len(sides), device=self.policy.device)
        positions = torch.arange(len(start), device=self.policy.device).expand_as(ids)
        self._forward(cache, ids, torch.ones_like(ids), positions, sides)
        cache.batch_select_indices(side_of_stem)

    def _forward(self, cache: RowCache, ids: Tensor, attention: Tensor, positions: Tensor, adapter: Tensor) -> Tensor:
        """Return the logits [R, V] after the last token of ``ids``, and append ``ids`` to the cache."""
        self.mask.set(adapter)
        told = {"input_ids": ids, "attention_mask": attention, "position_ids": positions, "use_cache": True}
        if self.patched:
            done = self.policy.decoder(**told, past_key_values=cache.as_tuples())
            cache.take_tuples(done.past_key_values)
        else:
            done = self.policy.decoder(**told, **{self.cache_name: cache})
        return self.policy.logits(done.last_hidden_state[:, -1])


def _common_start(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with; 0 if that is not worth a forward pass of its own.

    At least one token of every prompt is left, since the first drawn token comes from its hidden state.
    """
    if len(prompts) < LEAST_SHARING:
        return 0
    most = min(map(len, prompts)) - 1
    common = next((place for place in range(most) if len({prompt[place] for prompt in prompts}) > 1), most)
    return common if common >= LEAST_COMMON else 0
