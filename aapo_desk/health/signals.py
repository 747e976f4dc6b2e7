"""Checks of the learning signal: truncation, reward, advantages, margin, unscorable answers, accuracy."""

from __future__ import annotations

from aapo_desk.config import REFERENCE_ALGORITHMS, RunConfig, banks_reference
from aapo_desk.health import thresholds as at
from aapo_desk.health.alarm import Alarm
from aapo_desk.health.thresholds import NO_REWARD_STEPS, WINDOW
from aapo_desk.health.view import NotYet, View, finite


def truncation(view: View, stands: bool) -> Alarm | None:
    share, limit = view.mean("truncated", WINDOW), view.config.rollout.max_new_tokens
    if share <= at.MOST_TRUNCATED[stands]:
        return None
    return Alarm(
        "truncation",
        "completions are cut off",
        f"{share:.0%} of the completions of the last {WINDOW} steps were cut off at {limit} tokens.",
        f"Raise rollout.max_new_tokens (now {limit}), or have the system prompt ask for shorter answers.",
        view.window(WINDOW)[0][0],
        "warning",
    )


def no_reward(view: View, stands: bool) -> Alarm | None:
    if view.facts.most_reward <= 0:
        raise NotYet  # There are only penalties, so 0 is the best possible reward.
    best = max(view.values("reward", NO_REWARD_STEPS, after=0))
    if best > 0:
        return None
    return Alarm(
        "no_reward",
        "no reward",
        f"None of the last {NO_REWARD_STEPS} steps had a mean reward above 0; the best one had {best:.2f}.",
        "Read some completions and check that they contain the answer in a form that the reward function can read. "
        "Use easier problems, show the form in task.system_prompt, add a reward for partial success, or begin with a "
        "warm start (warm_start.solutions).",
        view.window(NO_REWARD_STEPS, after=0)[0][0],
        "critical",
    )


def no_signal(view: View, stands: bool) -> Alarm | None:
    share = view.mean("teaching", WINDOW)
    if share >= at.LEAST_TEACHING[stands]:
        return None
    done = solved(view)
    advice = "Use easier problems, a higher rollout.temperature or a larger rollout.group_size."
    if done:
        advice = "The problems are solved: stop here, or use harder ones."
    elif view.config.algorithm.name not in REFERENCE_ALGORITHMS:
        advice += " With algorithm.name=aapo, groups whose rewards are all equal also teach, through the margin."
    return Alarm(
        "no_signal",
        "nothing to learn from",
        f"Only {share:.1%} of the rows of the last {WINDOW} steps had a nonzero advantage; the others teach nothing.",
        advice,
        view.window(WINDOW)[0][0],
        "note" if done else "warning",
    )


def margin_saturated(view: View, stands: bool) -> Alarm | None:
    settings = view.config.algorithm
    if settings.name not in REFERENCE_ALGORITHMS or settings.margin_low == settings.margin_high:
        raise NotYet
    # A bound of 0 is not counted, since two equal rewards have a margin of 0 as well.
    low = view.mean("margin_low_share", WINDOW) if settings.margin_low else 0.0
    high = view.mean("margin_high_share", WINDOW) if settings.margin_high else 0.0
    limit = at.MOST_MARGINS_AT_A_BOUND[stands]
    if low + high < limit:
        return None
    since = view.window(WINDOW)[0][0]
    if high >= limit:
        title = "every completion beats the reference"
        message = f"{high:.0%} of the last {WINDOW} steps' margins were at the upper bound, {settings.margin_high}:"
        message += " the margin no longer distinguishes the completions."
        advice = "If the held-out accuracy is good enough, stop here; otherwise use harder problems."
        return Alarm("margin_saturated", title, message, advice, since, "note")
    if low >= limit:
        title = "every completion loses to the reference"
        message = f"{low:.0%} of the last {WINDOW} steps' margins were at the lower bound, {settings.margin_low}:"
        message += " the policy has become worse than the reference."
        advice = f"Fork from the best checkpoint with a lower optimizer.learning_rate {rate_now(view)}."
        return Alarm("margin_saturated", title, message, advice, since, "critical")
    title = "the margin is at its bounds"
    message = f"{low + high:.0%} of the last {WINDOW} steps' margins were at a bound: {low:.0%} at "
    message += f"{settings.margin_low}, {high:.0%} at {settings.margin_high}. The size of the differences is lost."
    advice = "Weight the rewards so that their sum is between 0 and 1, or widen algorithm.margin_low and margin_high."
    return Alarm("margin_saturated", title, message, advice, since, "warning")


def unscorable(view: View, stands: bool) -> Alarm | None:
    count, rows = sum(view.values("unscorable", WINDOW)), WINDOW * scored_rows(view.config)
    refilled = sum(finite("refilled_groups", view.window(WINDOW)))
    rows += round(refilled) * view.config.rollout.group_size
    if count <= at.MOST_UNSCORABLE[stands] * rows:
        return None
    names = ", ".join(reward.name for reward in view.config.rewards)
    message = f"{count:.0f} of {rows} completions of the last {WINDOW} steps could not be scored and were left out."
    advice = f"The events show which function failed, and on which text (rewards: {names}). "
    advice += "Test it with: aapo-desk rewards try"
    title = "answers cannot be scored"
    return Alarm("unscorable", title, message, advice, view.window(WINDOW)[0][0], "warning")


def evaluation_flat(view: View, stands: bool) -> Alarm | None:
    """Compare the reward's rise up to the last evaluation with the gain in held-out accuracy over the base model."""
    step = max(view.evaluations, default=0)
    first = view.history[:WINDOW]
    latest = [(number, metrics) for number, metrics in view.history if step - WINDOW < number <= step]
    if step < 2 * WINDOW or len(latest) < WINDOW or first[0][0] != 1:
        raise NotYet
    before, after = finite("reward", first), finite("reward", latest)
    gains = {name: gain for name in ("greedy", "sampled") if (gain := _gain(view, step, name)) is not None}
    if not before or not after or not gains:
        raise NotYet
    start, end = sum(before) / len(before), sum(after) / len(after)
    best = max(gains.values())
    rise = end - start
    if rise < at.LEAST_RISE[stands] * view.facts.most_reward or best >= at.LEAST_GAIN[stands] * rise:
        return None
    told = " and ".join(f"{gain:+.2f} ({name})" for name, gain in gains.items())
    return Alarm(
        "evaluation_flat",
        "the reward rises, the accuracy does not",
        f"From the first {WINDOW} steps to the {WINDOW} before step {step} the reward rose from {start:.2f} to "
        f"{end:.2f}, but the held-out accuracy changed by {told} from the base model's.",
        "Read the completions with the highest reward: they may earn it without a correct answer, or the policy has "
        "memorized the problems. Make the reward stricter, or use more problems.",
        step,
        "warning",
    )


def _gain(view: View, step: int, name: str) -> float | None:
    difference = view.evaluations[step].get("difference" if name == "greedy" else f"difference_{name}")
    return difference.get("mean") if difference else None


def solved(view: View) -> bool:
    """Return whether the mean reward of the window is close to the largest possible one."""
    return view.mean("reward", WINDOW) >= at.NEARLY_SOLVED * view.facts.most_reward > 0


def scored_rows(config: RunConfig) -> int:
    """Return the minimum number of completions that a step scores.

    These are the policy's, and the reference's if they are sampled in each step.
    """
    fresh = config.algorithm.name in REFERENCE_ALGORITHMS and not banks_reference(
        config.algorithm.name, config.algorithm.reference
    )
    return config.rollout.prompts_per_step * config.rollout.group_size * (2 if fresh else 1)


def rate_now(view: View) -> str:
    """Return the current learning rate in parentheses, for advice to change it."""
    return f"(now {view.config.optimizer.learning_rate:g})"
