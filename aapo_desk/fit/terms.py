"""What a run's memory is made of, term by term, and which of them are there at its peak."""

from __future__ import annotations

from dataclasses import dataclass

from aapo_desk.fit.verdict import Fit

ALWAYS = "always"


@dataclass(frozen=True)
class Term:
    """One thing that takes memory."""

    name: str
    phase: str
    """always, rollout or update."""
    bytes: int
    at_peak: bool
    """Whether it is part of the peak; those that are add up to all that is required."""


def terms(fit: Fit) -> list[Term]:
    """The terms by phase, the memory of the allocator and the libraries at the end; without those that take nothing."""
    estimate = fit.estimate
    rollout, update = (estimate.peak_phase == phase for phase in ("rollout", "update"))
    reads = estimate.prefill >= estimate.cache + max(estimate.attention, estimate.drawing)
    attends = estimate.attention > estimate.drawing
    heads = estimate.logits > estimate.layer
    found = [
        Term("weights", ALWAYS, estimate.weights, True),
        Term("adapter", ALWAYS, estimate.adapter, True),
        Term("its gradient", ALWAYS, estimate.gradient, True),
        Term("optimiser", ALWAYS, estimate.optimizer, True),
        Term("adapter in 16 bits", ALWAYS, estimate.copy, True),
        Term("shadow weights", ALWAYS, estimate.shadow, True),
        Term("reading the prompts", "rollout", estimate.prefill, rollout and reads),
        Term("cache of keys and values", "rollout", estimate.cache, rollout and not reads),
        Term("attention of a layer", "rollout", estimate.attention, rollout and not reads and attends),
        Term("drawing tokens", "rollout", estimate.drawing, rollout and not reads and not attends),
        Term("activations", "update", estimate.activations, update),
        Term("a layer on its way back", "update", estimate.layer, update and not heads),
        Term("logits", "update", estimate.logits, update and heads),
        Term("allocator and libraries", ALWAYS, fit.needed - estimate.peak, True),
    ]
    return [term for term in found if term.bytes]
