"""A run's memory term by term, and which terms are part of its peak."""

from __future__ import annotations

from dataclasses import dataclass

from aapo_desk.fit.verdict import Fit

ALWAYS = "always"


@dataclass(frozen=True)
class Term:
    """One part of a run's memory."""

    name: str
    phase: str
    """When it is needed: always, rollout or update."""
    bytes: int
    at_peak: bool
    """True if it is part of the peak; these terms add up to the total requirement."""


def terms(fit: Fit) -> list[Term]:
    """Return the nonzero terms by phase, ending with the memory of the allocator and the libraries."""
    estimate = fit.estimate
    rollout, update = (estimate.peak_phase == phase for phase in ("rollout", "update"))
    reads = estimate.prefill >= estimate.cache + max(estimate.attention, estimate.drawing)
    attends = estimate.attention > estimate.drawing
    heads = estimate.logits > estimate.layer
    found = [
        Term("weights", ALWAYS, estimate.weights, True),
        Term("adapter", ALWAYS, estimate.adapter, True),
        Term("adapter's gradient", ALWAYS, estimate.gradient, True),
        Term("optimizer", ALWAYS, estimate.optimizer, True),
        Term("adapter in 16 bits", ALWAYS, estimate.copy, True),
        Term("dequantized weights", ALWAYS, estimate.shadow, True),
        Term("prefill", "rollout", estimate.prefill, rollout and reads),
        Term("KV cache", "rollout", estimate.cache, rollout and not reads),
        Term("attention of a layer", "rollout", estimate.attention, rollout and not reads and attends),
        Term("sampling", "rollout", estimate.drawing, rollout and not reads and not attends),
        Term("activations", "update", estimate.activations, update),
        Term("backward pass of a layer", "update", estimate.layer, update and not heads),
        Term("logits", "update", estimate.logits, update and heads),
        Term("allocator and libraries", ALWAYS, fit.needed - estimate.peak, True),
    ]
    return [term for term in found if term.bytes]
