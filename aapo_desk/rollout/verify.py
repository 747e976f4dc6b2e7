"""Verify the fast paths on this device: compare each with the plain path, on the run's own first prompts.

What was measured elsewhere may not hold here: another driver, another processor, another version of a library. Before
the first step, and before an evaluation, the paths chosen for this device decode and differentiate a few completions,
and so does the model's own forward. A path that differs by more than rounding explains is not used, and the run says
so.

Three comparisons, since each sees what the others cannot:

    layers    every adapted layer on the same inputs: the adapter off, scaled, stale or missing in a single layer
    rollout   log-probs of the policy's and of the reference's rows, each held to its own side and away from the other:
              sides that are swapped, a wrong cache or mask, a row that is wrong after the batch has shrunk
    update    the gradient in all and layer by layer

Inside, the adapter is stirred so far that policy and reference differ by more than 16-bit rounding does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from aapo_desk.models.policy import Policy
from aapo_desk.rollout.captured import CaptureError
from aapo_desk.rollout.sampling import Sampling
from aapo_desk.rollout.trial import SideGap, Trial, Turn, Workload, stirred

GAP, MOST_GAP, NOISES = {True: 1e-3, False: 0.01}, {True: 5e-3, False: 0.3}, 6.0
"""Limit of a side's distance in nats a token, by whether the model computes in float32: ``NOISES`` times the plain
path's own noise, at least ``GAP`` and at most ``MOST_GAP``."""
ROW, NEARER = 5.0, 0.5
"""A row may be at most ``ROW`` times as far from the plain path as the median row. A side's distance to itself must be
below ``NEARER`` times its distance to the other side."""
LEAST_ROW = 0.1
"""Share of the limit below which a row is never an outlier."""
LAYER = {True: 1e-2, False: 0.2}
"""Limit of a layer's error over the adapter's share of its output."""
TURN, LAYER_TURN = {True: 1e-2, False: 0.3}, {True: 1e-2, False: 0.45}
"""Limits of a gradient's error over the plain gradient's norm: in all, and of one layer."""

DECODING = "decoding"
"""In ``Verdict.refused``: even without fast paths decoding differs from the model's own forward."""
PATHS = {
    "shadow_weights": "computing with dequantized weights",
    "row_mask": "decoding policy and reference in one batch",
    "own_update": "the gradient by our own layers",
    "fixed_steps": "the static-shape decode step",
    "share_prompts": "the update with shared prompts",
}


@dataclass
class Verdict:
    """The choices that held, why others did not, and what was measured."""

    choices: dict[str, int]
    refused: dict[str, str] = field(default_factory=dict)
    """By choice, a line for the user."""
    figures: dict[str, Any] = field(default_factory=dict)
    """The limits, the plain path's noise, and by comparison the distances; JSON."""

    def refuse(self, choice: str, reason: str) -> None:
        self.choices[choice] = 0
        self.refused[choice] = f"{PATHS[choice]} {reason}; the run continues without it"


def verify_fast_paths(
    policy: Policy, workload: Workload, sampling: Sampling, choices: dict[str, int], seed: int = 0
) -> Verdict:
    """Compare the paths that ``choices`` name with the plain one; ``policy`` is left as the verdict says.

    The adapter, which may change nothing yet, is stirred meanwhile and put back. Gradients are not compared with
    dropout, where no two are alike, or if the workload has no updates. ``seed`` decides the stirring and what is
    sampled.
    """
    with stirred(policy, seed):
        check = _Check(policy, Trial(policy, workload, sampling, seed), Verdict(dict(choices)))
        if choices.get("shadow_weights") and policy.shadow is None:
            policy.use_shadow()
        check.decoding()
        check.updates()
    check.verdict.figures |= {"noise": check.noise, "limit": check.limit}
    return check.verdict


class _Check:
    def __init__(self, policy: Policy, trial: Trial, verdict: Verdict) -> None:
        self.policy, self.trial, self.verdict = policy, trial, verdict
        self.exact = policy.computes_exactly
        self.limit = GAP[self.exact]
        self.noise: float | None = None

    def decoding(self) -> None:
        """Find the fastest way to decode that agrees with the plain path."""
        policy, verdict = self.policy, self.verdict
        static = bool(verdict.choices.get("fixed_steps"))
        reason = self.rollout(static)
        fell_back = reason is not None
        if static and reason:
            alone, reason = reason, self.rollout(static=False)
            if reason is None:
                verdict.refuse("fixed_steps", alone)
                static = False
        if reason and policy.shadow is not None:
            self.drop_shadow(reason)
            reason = self.rollout(static=False)
        if reason and policy.masks_rows:
            policy.masks_rows = False
            verdict.refuse("row_mask", reason)
            reason = self.rollout(static=False)
        if reason:
            verdict.refused[DECODING] = (
                f"decoding {reason}, even without any fast path; rewards and advantages may be wrong: update the GPU's "
                "driver and torch, or set model.compute_dtype=float32"
            )
        elif static and fell_back and (reason := self.rollout(static=True)):
            verdict.refuse("fixed_steps", reason)

    def updates(self) -> None:
        """Compare the gradients of the ways to update that were chosen."""
        policy, verdict = self.policy, self.verdict
        if policy.shadow is not None and (reason := self.gradient("dense", shared=False)):
            self.drop_shadow(reason)
            self.decoding()  # which has only been looked at with the weights that are gone
        if policy.shadow is None and policy.own_update and (reason := self.gradient("dense", shared=False)):
            policy.own_update = False
            verdict.refuse("own_update", reason)
        if verdict.choices.get("share_prompts") and (reason := self.gradient("shared", shared=True)):
            verdict.refuse("share_prompts", reason)

    def drop_shadow(self, reason: str) -> None:
        self.policy.shadow = None
        self.verdict.refuse("shadow_weights", reason)

    def rollout(self, static: bool) -> str | None:
        """How decoding differs from the plain path, as the rest of a sentence; None if it agrees."""
        if self.policy.masks_rows:
            error, name = self.trial.layers()
            self._note("layers", {"error": error, "layer": name})
            if not error <= LAYER[self.exact]:  # NaN is no agreement
                return f"differs from the plain path on this device in {name} (relative error {error:.2g})"
        try:
            gaps = self.trial.rollout(static)
        except CaptureError as error:
            return f"cannot be captured as a CUDA graph on this device ({error})"
        if self.noise is None:
            # A CPU's float32 rounds a hundred times below the limit, and a plain pass costs it a second.
            plain = self.exact and self.policy.device.type == "cpu"
            self.noise = 0.0 if plain else self.trial.noise()
            self.limit = limit(self.noise, self.exact)
        for gap in gaps:
            self._note(f"{'static' if static else 'growing'} {gap.side}", asdict(gap))
        return next((reason for gap in gaps if (reason := judge(gap, self.noise, self.exact))), None)

    def gradient(self, name: str, shared: bool) -> str | None:
        turn = self.trial.turn(shared)
        self._note(f"update {name}", asdict(turn))
        return judge_turn(turn, self.exact)

    def _note(self, name: str, figures: dict[str, Any]) -> None:
        self.verdict.figures[name] = figures


def limit(noise: float, exact: bool) -> float:
    """Return how far log-probs may be from the plain ones, in nats a token, given the plain path's own ``noise``."""
    return min(MOST_GAP[exact], max(GAP[exact], NOISES * noise))


def judge(gap: SideGap, noise: float, exact: bool) -> str | None:
    """How one side's rows differ from the plain path by more than rounding, as the rest of a sentence; None if not."""
    nats, most = "nats a token on this device", limit(noise, exact)
    if not gap.own <= most:  # NaN is no agreement
        return f"differs from the plain path in the {gap.side}'s rows by {gap.own:.2g} {nats} (limit {most:.2g})"
    if gap.own > NEARER * gap.other:
        return (
            f"does not keep policy and reference apart: the {gap.side}'s rows are {gap.own:.2g} {nats} from their own "
            f"side and {gap.other:.2g} from the other"
        )
    outlier = max(LEAST_ROW * most, ROW * max(gap.median_row, noise))
    if gap.worst_row > outlier or gap.misplaced > most:
        return f"differs from the plain path in one of the {gap.side}'s rows by {gap.worst_row:.2g} {nats}"
    return None


def judge_turn(turn: Turn, exact: bool) -> str | None:
    """How a gradient differs from the plain one by more than rounding, as the rest of a sentence; None if not."""
    if not turn.total <= TURN[exact]:
        return f"differs from the plain path on this device (relative error of the gradient {turn.total:.2g})"
    if turn.layer > LAYER_TURN[exact]:
        return f"differs from the plain path on this device in {turn.name} (relative error {turn.layer:.2g})"
    return None


def check_backend(policy: Policy, workload: Workload, sampling: Sampling) -> str | None:
    """Return why a policy whose layers another library computes cannot be trained here; None if it can.

    Each side decoded in a batch of its own, and an update of dense rows, are compared with the model's own forward, and
    the reference with a policy whose adapter changes nothing.
    """
    exact = policy.computes_exactly
    with stirred(policy):
        trial = Trial(policy, workload, sampling)
        gaps, noise = trial.rollout(), trial.noise()
        if (apart := trial.other_reference()) > limit(noise, exact):
            return f"does not switch the adapter off for the reference: {apart:.2g} nats a token apart"
        for gap in gaps:
            if reason := judge(gap, noise, exact):
                return f"decoding {reason}"
        if reason := judge_turn(trial.turn(shared=False), exact):
            return f"its gradient {reason}"
    return None
