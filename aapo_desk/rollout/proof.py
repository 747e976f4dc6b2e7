"""Fast paths prove themselves: each is compared with the plain path on this device, on the run's own first prompts.

What was measured elsewhere need not hold here: another driver, another processor, another version of a library. So
before the first step, and before an evaluation, the paths chosen for this device compute a few completions, and so does
the model's own forward, one row at a time. Where they differ by more than rounding explains, it goes on without that
path and says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from aapo_desk.models.logprobs import Pack, pack_logps
from aapo_desk.models.policy import Policy
from aapo_desk.rollout.decoding import Completions, Row, decode
from aapo_desk.rollout.sampling import Sampling, uniforms

MOST_GAP = {True: 1e-3, False: 0.1}
"""Mean distance of log-probs that rounding explains, in nats: computing in float32, in 16 bits."""
MOST_TURN = {True: 1e-2, False: 0.2}
"""Distance of two gradients over the plain one's norm that rounding explains."""
PROMPTS, TOKENS = 2, 8
ROWS = [Row(prompt, adapter) for prompt in range(PROMPTS) for adapter in (True, True, False)]
OURS = [number for number, row in enumerate(ROWS) if row.adapter]


@dataclass
class Verdict:
    """The choices that held, and a line for each that did not."""

    choices: dict[str, int]
    refused: list[str] = field(default_factory=list)

    def refuse(self, choice: str, value: int, what: str, error: float) -> None:
        self.choices[choice] = value
        self.refused.append(
            f"{what} differs from the plain path on this device by {error:.2g}: the run goes without it"
        )


def prove(
    policy: Policy, prompts: Sequence[list[int]], sampling: Sampling, choices: dict[str, int], updates: bool = True
) -> Verdict:
    """Compare the paths that ``choices`` name with the plain one; ``policy`` is left as the verdict says.

    The adapter, which may change nothing yet, is stirred for it and put back. With dropout no two gradients are alike,
    so only what is decoded is compared; likewise where no ``updates`` will follow.
    """
    verdict = Verdict(dict(choices))
    with _stirred(policy):
        trial = _Trial(policy, _of_trial(prompts), sampling, updates)
        if choices.get("shadow_weights"):
            if policy.shadow is None:
                policy.use_shadow()
            if (error := trial.rollout()) > trial.gap:
                policy.shadow = None
                verdict.refuse("shadow_weights", 0, "decoding by shadow weights", error)
            elif (turn := trial.turn(shared=False)) > trial.most_turn:
                policy.shadow = None
                verdict.refuse("shadow_weights", 0, "the gradient by shadow weights", turn)
        if policy.shadow is None and (error := trial.rollout()) > trial.gap and policy.masks_rows:
            policy.masks_rows = False
            verdict.refuse("row_mask", 0, "policy and reference in one batch", error)
        if policy.shadow is None and policy.own_update and (turn := trial.turn(shared=False)) > trial.most_turn:
            policy.own_update = False
            verdict.refuse("own_update", 0, "the gradient by our own layers", turn)
        if choices.get("fixed_steps") and (error := trial.rollout(fixed=True)) > trial.gap:
            verdict.refuse("fixed_steps", 0, "the captured decode step", error)
        if choices.get("share_prompts") and (turn := trial.turn(shared=True)) > trial.most_turn:
            verdict.refuse("share_prompts", 0, "the update behind shared prompts", turn)
    return verdict


def doubt(policy: Policy, prompts: Sequence[list[int]], sampling: Sampling) -> str | None:
    """Why a policy whose layers another library computes cannot be trained here; None where it can.

    Each side decoded in a batch of its own, and an update of plain rows, are compared with the model's own forward, and
    the reference with a policy whose adapter changes nothing.
    """
    prompts = _of_trial(prompts)
    with _stirred(policy):
        trial = _Trial(policy, prompts, sampling, updates=True)
        if (error := trial.rollout()) > trial.gap:
            return f"decodes otherwise than its own forward, by {error:.2g} nats a token"
        if (turn := trial.turn(shared=False)) > trial.most_turn:
            return f"has another gradient behind our log-probs than behind its own, by {turn:.2g}"
        with _adapter(policy, on=False):
            off = trial.own_logps()
    with _with_b(policy, torch.zeros_like):
        if (error := float((off - trial.own_logps()).abs().mean())) > trial.gap:
            return f"does not switch the adapter off for the reference: {error:.2g} nats a token apart"
    return None


def _of_trial(prompts: Sequence[list[int]]) -> list[list[int]]:
    return sorted(prompts, key=len)[:1] * PROMPTS if len(prompts) < PROMPTS else list(prompts[:PROMPTS])


class _Trial:
    def __init__(self, policy: Policy, prompts: list[list[int]], sampling: Sampling, updates: bool) -> None:
        self.policy, self.prompts, self.sampling, self.updates = policy, prompts, sampling, updates
        self.gap, self.most_turn = MOST_GAP[policy.computes_exactly], MOST_TURN[policy.computes_exactly]
        self._plain_gradient: list[Tensor] | None = None
        self.completions: list[list[int]] = []

    def rollout(self, fixed: bool = False) -> float:
        """Mean distance of a rollout's log-probs from the plain ones of the same tokens."""
        done = decode(
            self.policy, self.prompts, ROWS, TOKENS, self.sampling, uniforms(len(ROWS), TOKENS, 0), fixed=fixed
        )
        self.completions = [done.row(row) for row in OURS]
        self._plain_gradient = None
        return self._distance(done)

    def _distance(self, done: Completions) -> float:
        apart = [(done.logps[row, : len(plain)] - plain).abs() for row, plain in enumerate(self._plain(done))]
        return float(torch.cat(apart).mean())

    @torch.no_grad()
    def _plain(self, done: Completions) -> Iterator[Tensor]:
        """Log-probs of each row's tokens by the model's own forward, one row at a time."""
        for number, row in enumerate(ROWS):
            completion = done.row(number)
            with _adapter(self.policy, row.adapter):
                yield self._own_logps(self.prompts[row.prompt], completion).float().cpu()

    @torch.no_grad()
    def own_logps(self) -> Tensor:
        """Of all tokens of the policy's last completions, by the model's own forward."""
        pairs = zip(OURS, self.completions, strict=True)
        return torch.cat([self._own_logps(self.prompts[ROWS[row].prompt], done).float().cpu() for row, done in pairs])

    def _own_logps(self, prompt: list[int], completion: list[int]) -> Tensor:
        ids = torch.tensor([[*prompt, *completion]], device=self.policy.device)
        logits = self.policy.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.sampling.temperature
        logps: Tensor = scaled.log_softmax(1).gather(1, ids[0, len(prompt) :, None]).squeeze(1)
        return logps

    def turn(self, shared: bool) -> float:
        """How far the update's gradient is from the plain one, over the plain one's norm; of summed log-probs."""
        dropout = any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.policy.model.modules())
        if dropout or not self.updates:
            return 0.0
        if self._plain_gradient is None:
            self._plain_gradient = self._gradient(
                self._own_logps(self.prompts[ROWS[row].prompt], completion).sum()
                for row, completion in zip(OURS, self.completions, strict=True)
            )
        group = len(OURS) // PROMPTS
        packs = [
            Pack(prompt, self.completions[number * group : (number + 1) * group])
            for number, prompt in enumerate(self.prompts)
        ]
        batches = [packs]
        if not shared:
            packs = [Pack(pack.prompt, [completion]) for pack in packs for completion in pack.completions]
            batches = [packs[number::group] for number in range(group)]  # a row of each prompt; more takes more memory
        with self.policy.training():
            gradient = self._gradient(
                pack_logps(self.policy, batch, TOKENS, self.sampling.temperature).sum() for batch in batches
            )
        for one, plain in zip(gradient, self._plain_gradient, strict=True):
            one -= plain
        return _norm(gradient) / max(1e-12, _norm(self._plain_gradient))

    def _gradient(self, parts: Iterable[Tensor]) -> list[Tensor]:
        """Of the sum of ``parts``, by each of the adapter's weights."""
        parameters = list(self.policy.adapter_parameters().values())
        total = [torch.zeros_like(parameter, device="cpu", requires_grad=False) for parameter in parameters]
        for part in parts:
            for summed, one in zip(total, torch.autograd.grad(part, parameters), strict=True):
                summed += one.cpu()
        return total


def _norm(tensors: Iterable[Tensor]) -> float:
    return math.hypot(*(float(one.double().norm()) for one in tensors))


@contextmanager
def _adapter(policy: Policy, on: bool) -> Iterator[None]:
    if on:
        yield
    else:
        with policy.as_reference():
            yield


def _stirred(policy: Policy) -> AbstractContextManager[None]:
    """Inside, the adapter's B is random, so that policy and reference differ."""
    generator = torch.Generator().manual_seed(0)

    def stir(value: Tensor) -> Tensor:
        return value.cpu() + 0.1 * torch.randn(value.shape, generator=generator) / value.shape[1]

    return _with_b(policy, stir)


@contextmanager
def _with_b(policy: Policy, made: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, each B of the adapter is what is ``made`` of it; afterwards it is as it was."""
    kept = {name: value.detach().clone() for name, value in policy.adapter_parameters().items() if "lora_B" in name}
    parameters = policy.adapter_parameters()
    try:
        for name, value in kept.items():
            parameters[name].data = made(value).to(value)
        yield
    finally:
        for name, value in kept.items():
            parameters[name].data = value
