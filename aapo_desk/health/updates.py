"""Checks of the updates: gradient, entropy, non-finite numbers, agreement with the rollout, memory."""

from __future__ import annotations

from statistics import median

from aapo_desk.health import thresholds as at
from aapo_desk.health.alarm import Alarm
from aapo_desk.health.signals import rate_now, solved
from aapo_desk.health.thresholds import GAP_WINDOW, SPIKE_WINDOW, WINDOW
from aapo_desk.health.view import GRACE_STEPS, History, NotYet, View, finite, is_number


def gradient(view: View, stands: bool) -> Alarm | None:
    return _gradient_high(view, stands) or _gradient_spikes(view) or _gradient_low(view, stands)


def _gradient_high(view: View, stands: bool) -> Alarm | None:
    norm, limit = median(view.values("grad_norm", WINDOW)), view.config.optimizer.max_grad_norm
    if norm <= at.GRADIENT_RANGE[1] * (1.0 if stands else at.GRADIENT_LEEWAY):
        return None
    message = f"The median gradient norm of the last {WINDOW} steps is {norm:.3g}; healthy is at most "
    message += f"{at.GRADIENT_RANGE[1]:g}."
    message += f" Gradients are clipped to optimizer.max_grad_norm = {limit:g}." if norm > limit else ""
    advice = f"Lower optimizer.learning_rate {rate_now(view)}, or use more prompts per step."
    return Alarm("gradient", "the gradient is large", message, advice, view.window(WINDOW)[0][0], "warning")


def _gradient_spikes(view: View) -> Alarm | None:
    try:
        steps = view.window(SPIKE_WINDOW)
        usual = median(view.values("grad_norm", SPIKE_WINDOW))
    except NotYet:
        return None
    limit = max(at.SPIKE * usual, at.GRADIENT_RANGE[1])
    spikes = [(step, norm) for step, metrics in steps if is_number(norm := metrics.get("grad_norm")) and norm > limit]
    if len(spikes) < at.MOST_SPIKES:
        return None
    step, norm = max(spikes, key=lambda spike: spike[1])
    message = f"{len(spikes)} of the last {SPIKE_WINDOW} gradient norms were more than {at.SPIKE:g} times their median "
    message += f"of {usual:.3g}; the largest was {norm:.3g}, in step {step}."
    advice = f"Look at the completions of step {step}. Lower optimizer.max_grad_norm or optimizer.learning_rate."
    return Alarm("gradient", "the gradient has spikes", message, advice, spikes[0][0], "warning")


def _gradient_low(view: View, stands: bool) -> Alarm | None:
    taught = _taught(view)
    norms = finite("grad_norm", taught)
    if len(norms) <= WINDOW // 2:
        return None
    norm = median(norms)
    if norm >= at.GRADIENT_RANGE[0] * (at.GRADIENT_LEEWAY if stands else 1.0):
        return None
    message = (
        f"The median gradient norm of the last {WINDOW} steps is {norm:.2g}; healthy is at least "
        f"{at.GRADIENT_RANGE[0]:g}."
    )
    advice = "Check how much the rewards differ: the differences may be tiny, or have small weights. "
    advice += "algorithm.scale_rewards=true scales them within each group."
    return Alarm("gradient", "the gradient is tiny", message, advice, taught[0][0], "warning")


def entropy_collapse(view: View, stands: bool) -> Alarm | None:
    entropy = view.mean("entropy", WINDOW)
    if entropy >= at.LEAST_ENTROPY[stands] or solved(view):
        return None
    return Alarm(
        "entropy_collapse",
        "the policy no longer varies",
        f"The mean entropy of the last {WINDOW} steps is {entropy:.3f} nats per token; 0.05 to 0.5 is healthy. "
        "The completions of a group are nearly equal, so the policy explores nothing new.",
        f"Fork from an earlier checkpoint with a lower optimizer.learning_rate {rate_now(view)} "
        f"or a higher rollout.temperature (now {view.config.rollout.temperature:g}).",
        view.window(WINDOW)[0][0],
        "warning",
    )


def non_finite(view: View, stands: bool) -> Alarm | None:
    steps = view.window(WINDOW)
    bad = [
        step
        for step, metrics in steps
        if metrics.get("not_finite") or not all(is_number(metrics.get(key, 0.0)) for key in ("loss", "grad_norm"))
    ]
    if len(bad) < (1 if stands else at.MOST_NOT_FINITE):
        return None
    dtype = view.config.model.compute_dtype
    return Alarm(
        "non_finite",
        "steps are not finite",
        f"In {len(bad)} of the last {WINDOW} steps the loss or the gradient was not finite; "
        "these steps were skipped and changed nothing.",
        f"Fork from the last good checkpoint with a lower optimizer.learning_rate {rate_now(view)}; "
        f"model.compute_dtype=bfloat16 or float32 (now {dtype}) overflows less than float16.",
        bad[0],
        "critical",
    )


def adapter_still(view: View, stands: bool) -> Alarm | None:
    taught = _taught(view)
    moves = finite("update_norm", taught)
    if len(moves) <= WINDOW // 2:
        raise NotYet
    if any(moves) and not view.facts.adapter_zero:
        return None
    seen = (
        "lora_B is still 0, so the model still equals the base model"
        if view.facts.adapter_zero
        else "the adapter did not change"
    )
    return Alarm(
        "adapter_still",
        "the adapter does not move",
        f"{len(moves)} of the last {WINDOW} steps had something to learn from, but {seen}.",
        "Set model.backend=transformers, and check lora.targets: the model's forward pass may not use the layers named "
        "there.",
        taught[0][0],
        "critical",
    )


def disagreement(view: View, stands: bool) -> Alarm | None:
    if view.config.lora.dropout:
        raise NotYet  # Dropout applies to the update only, so the two are expected to differ.
    gap, limit = view.mean("logp_gap", GAP_WINDOW), at.MOST_GAP[view.facts.exact]
    if gap <= limit * (0.8 if stands else 1.0):
        return None
    return Alarm(
        "disagreement",
        "rollout and update disagree",
        f"Their log-probabilities differ by {gap:.3f} nats per token, but rounding explains only {limit:g}: "
        "the gradient does not belong to the policy that sampled.",
        "Set rollout.weights=adapter; if that does not help, rollout.capture=off.",
        view.window(GAP_WINDOW)[0][0],
        "critical",
    )


def memory_end(view: View, stands: bool) -> Alarm | None:
    facts = view.facts
    if view.last <= GRACE_STEPS or not facts.memory_total:
        raise NotYet
    if facts.memory_used < at.LEAST_MEMORY_LEFT[stands] * facts.memory_total:
        return None
    return Alarm(
        "memory",
        "memory is nearly full",
        f"{facts.memory_used / 1024:.1f} of {facts.memory_total / 1024:.1f} GB of {facts.memory} is used; "
        "longer completions may end the run.",
        "Close other programs that use it. Lower rollout.max_new_tokens or rollout.group_size, or set "
        "rollout.weights=adapter.",
        view.last,
        "warning",
    )


def _taught(view: View) -> History:
    """Return the window's steps that had something to learn from; the check ``no_signal`` covers the others."""
    least = at.LEAST_TEACHING[False]
    return [(step, metrics) for step, metrics in view.window(WINDOW) if (metrics.get("teaching") or 0.0) >= least]
