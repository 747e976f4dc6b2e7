"""One comparison of the fast paths with the plain one: the same tokens, the same adapter, both ways.

The plain path is the model's own forward with peft's layers: no cache, no row mask, no dequantized weights, no graph.

Shapes: R rows decoded, J of them judged, T tokens.
"""

from __future__ import annotations

import inspect
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from aapo_desk.models.logprobs import Pack, pack_logps
from aapo_desk.models.policy import Policy
from aapo_desk.models.rows import adapted_layers
from aapo_desk.rollout.captured import LEAST_PART, STEPS_BETWEEN_LOOKS
from aapo_desk.rollout.decoding import Row, decode
from aapo_desk.rollout.sampling import Sampling, uniforms

JUDGED = 8
"""Rows of each side that are compared token by token, at the most."""
NEVER_DRAWN = -1
FEW = 4
"""Tokens at the median row's distance that each row's own are averaged with, since one token alone says little."""
SHORT = 2
"""Tokens of the rows that are not judged. They end there, so that the batch shrinks to the judged ones."""
GROWING_TOKENS, STATIC_TOKENS = 12, LEAST_PART + STEPS_BETWEEN_LOOKS
"""Tokens of a judged row: over shrinks alone, and over a wider part of the cache as well."""
UPDATE_PROMPTS, UPDATE_ROWS, UPDATE_TOKENS = 2, 2, 8
LAYER_ROWS, LAYER_TOKENS = 4, 16
LOGITS_AT_ONCE, TOKENS_AT_ONCE = 1 << 25, 2048
"""Upper bounds of what the plain path computes at once, if that is more than one row."""
CPU_ROWS = 16
"""Rows decoded on a CPU, whose kernels do not depend on their number as a GPU's do."""
STIR = 1.0
"""Scale of the random numbers in B: large enough that 16-bit rounding does not hide them."""


@dataclass(frozen=True)
class Workload:
    """The work of a rollout: its prompts (token ids), how many completions of each, and how much at once."""

    prompts: Sequence[Sequence[int]]
    group_size: int
    max_new_tokens: int
    batch_rows: int
    updates: bool = True
    """True if updates follow; an evaluation makes none."""

    def smaller(self) -> Workload | None:
        """Return the same with half of the rows; None if there is one of each side."""
        rows = len(self.rows())
        return replace(self, batch_rows=rows // 2) if rows > 2 else None

    def rows(self) -> list[Row]:
        """Rows of both sides, as many as are decoded at once; at least one of each side."""
        each = max(1, min(len(self.prompts) * self.group_size, self.batch_rows // 2))
        prompts = [place * min(len(self.prompts), each) // each for place in range(each)]
        return [Row(prompt, adapter) for adapter in (True, False) for prompt in prompts]


@dataclass(frozen=True)
class SideGap:
    """How far one side's fast log-probs are from the plain ones, in nats a token (mean absolute difference)."""

    side: str
    """``policy`` or ``reference``."""
    own: float
    """From the plain path of the same side."""
    other: float
    """From the plain path of the other side: policy instead of reference, or the reverse."""
    worst_row: float
    """The largest distance of a single row from its own side; a row of few tokens counts less."""
    median_row: float
    """The median distance of a row."""
    misplaced: float
    """The largest distance of a row that is nearer to the other side than to its own; 0 if there is none."""


@dataclass(frozen=True)
class Turn:
    """How far a gradient is from the plain one, over the plain one's norm: in all, and of the worst layer."""

    total: float
    layer: float
    name: str


class Trial:
    """Fast and plain path on one workload, with the adapter as it is while this is used."""

    def __init__(self, policy: Policy, workload: Workload, sampling: Sampling, seed: int = 0) -> None:
        self.policy, self.updates = policy, workload.updates
        # Below 1 a temperature makes rounding larger by as much as it does the differences that are looked for.
        self.sampling = replace(sampling, temperature=max(1.0, sampling.temperature))
        self.prompts = [list(prompt) for prompt in workload.prompts]
        self.width = workload.max_new_tokens
        self.rows = workload.rows()
        self.batch_rows = max(2, workload.batch_rows)
        self.seed = seed
        self.judged = [*self._spread(True), *self._spread(False)]
        self._completions: list[tuple[list[int], list[int]]] = []
        self._plain_on: list[Tensor] = []
        self._plain_gradient: list[Tensor] | None = None
        keeps = inspect.signature(type(policy.causal).forward).parameters
        self._keeps_last = "logits_to_keep" in keeps

    def _spread(self, adapter: bool) -> list[int]:
        """Rows of a side that are judged: half of them at most, spread over the prompts."""
        own = [place for place, row in enumerate(self.rows) if row.adapter == adapter]
        count = max(1, min(JUDGED, len(own) // 2))
        return [own[number * len(own) // count] for number in range(count)]

    def rollout(self, static: bool = False) -> tuple[SideGap, SideGap]:
        """Decode all rows and compare the judged ones with the plain path: the policy's, the reference's."""
        width = min(self.width, STATIC_TOKENS if static else GROWING_TOKENS)
        limits = torch.full((len(self.rows),), min(SHORT, width))
        limits[self.judged] = width
        numbers = uniforms(len(self.rows), width, self.seed)
        ends, self.policy.eos_ids = self.policy.eos_ids, (NEVER_DRAWN,)  # judged rows that end early would show little
        try:
            done = decode(
                self.policy, self.prompts, self.rows, width, self.sampling, numbers, self.batch_rows,
                fixed=static, limits=limits,
            )  # fmt: skip
        finally:
            self.policy.eos_ids = ends
        pairs = [(self.prompts[self.rows[place].prompt], done.row(place)) for place in self.judged]
        fast = [done.logps[place, : int(done.lengths[place])] for place in self.judged]
        on, off = (self.plain_logps(pairs, adapter) for adapter in (True, False))
        if not self._completions:
            self._completions, self._plain_on = pairs, on
        return self._gap(True, fast, on, off), self._gap(False, fast, off, on)

    def _gap(self, adapter: bool, fast: list[Tensor], own: list[Tensor], other: list[Tensor]) -> SideGap:
        rows = [number for number, place in enumerate(self.judged) if self.rows[place].adapter == adapter]
        near = [(fast[number] - own[number]).abs() for number in rows]
        far = [(fast[number] - other[number]).abs() for number in rows]
        means = [(float(a.mean()), float(b.mean())) for a, b in zip(near, far, strict=True)]
        median = statistics.median_low(mine for mine, _ in means)
        distances = [(float(one.sum()) + FEW * median) / (len(one) + FEW) for one in near]
        return SideGap(
            "policy" if adapter else "reference",
            float(torch.cat(near).mean()),
            float(torch.cat(far).mean()),
            max(distances),
            median,
            max((mine for mine, others in means if mine > others), default=0.0),
        )

    def noise(self) -> float:
        """Mean distance of the plain path from itself, in nats a token: in another batch shape, and with the adapter
        rounded to 16 bits if the model computes in these, as the fast paths have it. After a rollout.
        """
        rounded = nullcontext() if self.policy.computes_exactly else replaced(self.policy, self._rounded, "lora_")
        with rounded:
            again = self.plain_logps(self._completions, True, more=3)
        return float(torch.cat([(a - b).abs() for a, b in zip(again, self._plain_on, strict=True)]).mean())

    def _rounded(self, value: Tensor) -> Tensor:
        return value.to(self.policy.causal.dtype)

    @torch.no_grad()
    def other_reference(self) -> float:
        """Mean distance of the reference from a policy whose adapter changes nothing, in nats a token; after a rollout.

        None of this is ours: it holds another library's layers to what switching the adapter off means.
        """
        off = self.plain_logps(self._completions, False)
        with replaced(self.policy, torch.zeros_like):
            nothing = self.plain_logps(self._completions, True)
        return float(torch.cat([(a - b).abs() for a, b in zip(off, nothing, strict=True)]).mean())

    @torch.no_grad()
    def plain_logps(self, pairs: Sequence[tuple[list[int], list[int]]], adapter: bool, more: int = 0) -> list[Tensor]:
        """Return the log-probs of each completion's tokens after its prompt, by the model's own forward, on the CPU.

        ``more``: further columns of padding on the right, where nothing looks.
        """
        least = min(len(prompt) for prompt, _ in pairs)
        longest = max(len(prompt) + len(new) for prompt, new in pairs) + more
        vocabulary = self.policy.causal.config.get_text_config().vocab_size
        size = min(LOGITS_AT_ONCE // ((longest - least + 1) * vocabulary), TOKENS_AT_ONCE // longest)
        size = max(1, size)
        found: list[Tensor] = []
        with adapter_set(self.policy, adapter):
            for start in range(0, len(pairs), size):
                found += self._plain(pairs[start : start + size], more)
        return [logps.float().cpu() for logps in found]

    def _plain(self, pairs: Sequence[tuple[list[int], list[int]]], more: int = 0) -> list[Tensor]:
        """The same with a gradient, all in one batch padded on the right: causal layers never look there."""
        device = self.policy.device
        longest = max(len(prompt) + len(new) for prompt, new in pairs) + more
        ids = torch.full((len(pairs), longest), self.policy.pad_id, device=device)
        for row, (prompt, new) in enumerate(pairs):
            ids[row, : len(prompt) + len(new)] = torch.tensor([*prompt, *new], device=device)
        first = min(len(prompt) for prompt, _ in pairs) - 1
        kept = {"logits_to_keep": longest - first} if self._keeps_last else {}
        logits = self.policy.model(input_ids=ids, use_cache=False, **kept).logits
        start = first if self._keeps_last else 0
        logps = []
        for row, (prompt, new) in enumerate(pairs):
            own = logits[row, len(prompt) - 1 - start : len(prompt) + len(new) - 1 - start]
            scaled = own.to(torch.promote_types(own.dtype, torch.float32)) / self.sampling.temperature
            targets = ids[row, len(prompt) : len(prompt) + len(new), None]
            logps.append(scaled.log_softmax(1).gather(1, targets).squeeze(1))
        return logps

    @torch.no_grad()
    def layers(self) -> tuple[float, str]:
        """The largest error of an adapted layer by the fast path, over the adapter's share of its output, and its name.

        Each layer is given the same inputs both ways: half of the rows with the adapter on, half with it off.
        """
        policy = self.policy
        prompt = self.prompts[0][:LAYER_TOKENS]
        ids = torch.tensor([prompt] * LAYER_ROWS, device=policy.device)
        on = torch.arange(LAYER_ROWS, device=policy.device) < LAYER_ROWS // 2
        names = {module: name for name, module in policy.model.named_modules()}
        errors: dict[str, Tensor] = {}

        def compare(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            plain = type(layer).forward(layer, *inputs)
            base = policy.reference_output(layer, inputs[0])
            share = (plain - base).float().norm()
            expected = torch.where(on.view(-1, *[1] * (output.dim() - 1)), plain, base)
            error = torch.stack([(output - expected)[rows].float().norm() for rows in (on, ~on)]).max()
            errors[names[layer]] = error * math.sqrt(2) / share.clamp(min=1e-12)

        with policy.adapter_on_rows() as mask:
            mask.set(on)
            layers = [layer for layer in adapted_layers(policy.model) if "forward" in vars(layer)]
            hooks = [layer.register_forward_hook(compare) for layer in layers]
            try:
                policy.decoder(input_ids=ids, use_cache=False)
            finally:
                for hook in hooks:
                    hook.remove()
        if not errors:
            return 0.0, ""
        values = torch.stack(list(errors.values())).nan_to_num(nan=math.inf).tolist()
        worst = max(range(len(values)), key=values.__getitem__)
        return values[worst], list(errors)[worst]

    def turn(self, shared: bool) -> Turn:
        """Compare the gradient of the completions' summed log-probs with the plain one. All 0 with dropout."""
        dropout = any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.policy.model.modules())
        if dropout or not self.updates:
            return Turn(0.0, 0.0, "")
        packs = self._packs()
        pairs = [(list(pack.prompt), list(new)) for pack in packs for new in pack.completions]
        if self._plain_gradient is None:
            # On a CPU one batch, since layers are made of their 4 bits at each pass; on a GPU what takes less memory.
            split = [pairs] if self.policy.device.type == "cpu" else [[pair] for pair in pairs]
            self._plain_gradient = self._gradient(torch.cat(self._plain(some)).sum() for some in split)
        batches = [packs]
        if not shared:
            singles = [Pack(pack.prompt, [new]) for pack in packs for new in pack.completions]
            batches = [singles[number::UPDATE_ROWS] for number in range(UPDATE_ROWS)]
        with self.policy.training():
            gradient = self._gradient(
                pack_logps(self.policy, batch, UPDATE_TOKENS, self.sampling.temperature).sum() for batch in batches
            )
        return self._turned(gradient)

    def _packs(self) -> list[Pack]:
        found: dict[tuple[int, ...], list[list[int]]] = {}
        for prompt, new in self._completions:
            found.setdefault(tuple(prompt), []).append(new[:UPDATE_TOKENS])
        return [Pack(prompt, news[:UPDATE_ROWS]) for prompt, news in list(found.items())[:UPDATE_PROMPTS]]

    def _turned(self, gradient: list[Tensor]) -> Turn:
        assert self._plain_gradient is not None
        apart = [
            (one - plain).double().norm().item() for one, plain in zip(gradient, self._plain_gradient, strict=True)
        ]
        plain = [one.double().norm().item() for one in self._plain_gradient]
        names = list(self.policy.adapter_parameters())
        by_layer: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            by_layer.setdefault(name.partition(".lora_")[0], []).append(number)
        worst, name = max(
            (math.hypot(*(apart[n] for n in places)) / max(1e-12, math.hypot(*(plain[n] for n in places))), layer)
            for layer, places in by_layer.items()
        )
        return Turn(math.hypot(*apart) / max(1e-12, math.hypot(*plain)), worst, name)

    def _gradient(self, parts: Iterable[Tensor]) -> list[Tensor]:
        """By each of the adapter's weights, of the sum of ``parts``; on the CPU."""
        parameters = list(self.policy.adapter_parameters().values())
        total = [torch.zeros_like(parameter, device="cpu", requires_grad=False) for parameter in parameters]
        for part in parts:
            for summed, one in zip(total, torch.autograd.grad(part, parameters), strict=True):
                summed += one.cpu()
        return total


@contextmanager
def adapter_set(policy: Policy, on: bool) -> Iterator[None]:
    """Inside, the model's own forward has the adapter on, or off as the reference has it."""
    if on:
        yield
    else:
        with policy.as_reference():
            yield


@contextmanager
def stirred(policy: Policy, seed: int = 0) -> Iterator[None]:
    """Inside, the adapter's B is random, so that policy and reference differ by far more than rounding."""
    generator = torch.Generator().manual_seed(seed)

    def stir(value: Tensor) -> Tensor:
        return value.cpu() + STIR * torch.randn(value.shape, generator=generator) / value.shape[1]

    with replaced(policy, stir):
        yield


@contextmanager
def replaced(policy: Policy, make: Callable[[Tensor], Tensor], which: str = "lora_B") -> Iterator[None]:
    """Inside, each of these weights of the adapter is what ``make`` gives for it; afterwards it is as it was."""
    parameters = policy.adapter_parameters()
    kept = {name: value.detach().clone() for name, value in parameters.items() if which in name}
    try:
        for name, value in kept.items():
            parameters[name].data = make(value).to(value)
        yield
    finally:
        for name, value in kept.items():
            parameters[name].data = value
