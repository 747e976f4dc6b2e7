"""Lines of text about a run: its steps, events, evaluations and final result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aapo_desk.cli.output import printable, table
from aapo_desk.evaluation.accuracy import on_one_rule
from aapo_desk.store import Budget, event_words, progress
from aapo_desk.store.unscorable import evaluation_notes

Metrics = Mapping[str, float | None]
Answers = Mapping[str, Any]

# Events that get no line because another line says the same and more.
SILENT_EVENTS = frozenset({"evaluation", "finished", "failed", "stopped"})


def step_line(step: int, steps: int, metrics: Metrics, budget: Budget | None = None) -> str:
    """Return a line of about 100 columns for a step, without the loss, which does not show whether the model learns."""
    seconds = sum(metrics.get(f"seconds_{part}") or 0.0 for part in ("rollout", "reward", "update"))
    done = progress(step, steps, budget)
    if budget and "/" not in done:  # pad both growing numbers, so that the columns stay aligned
        number, _, spent = done.partition(", ")
        done = f"{number:>4}, {spent:>{len(replace(budget, spent=budget.limit).words)}}"
    parts = [
        f"step {done:>{2 * len(str(steps)) + 1}}" if "/" in done else f"step {done}",
        f"reward {_number(metrics.get('reward'), '.3f', 6)}",
        f"ref {_number(metrics.get('reference_reward'), '.3f', 6)}",
        f"|adv| {_number(metrics.get('advantage_abs'), '.2f', 4)}",
        f"teaching {_number(metrics.get('teaching'), '.0%', 4)}",
        f"grad {_number(metrics.get('grad_norm'), '.3f', 5)}",
        f"tokens {_number(metrics.get('completion_tokens'), '.0f', 4)}",
        f"{seconds:6.1f} s",
    ]
    return "  ".join(parts)


def _number(value: float | None, form: str, width: int) -> str:
    return ("-" if value is None else format(value, form)).rjust(width)


def event_line(kind: str, data: Mapping[str, Any]) -> str | None:
    """Return one line for an event, or None if another line covers it."""
    return None if kind in SILENT_EVENTS else printable(event_words(kind, data))


def evaluation_line(step: int, data: Answers) -> str:
    """Return a line for an evaluation: accuracies with 95 % intervals, change from the base, unscorable answers."""
    who = "base model" if step == 0 else f"after step {step}"
    parts = [f"evaluation, {who}: greedy {interval(data['greedy'], 'accuracy')}"]
    if data.get("difference"):
        parts.append(f"change {interval(data['difference'], 'mean', '+')}")
    parts.append(f"sampled {interval(data['sampled'], 'accuracy')}")
    parts.append(f"{data['problems']} problems")
    notes = evaluation_notes(data)
    return "  ".join([*parts, "; ".join(notes)] if notes else parts)


def interval(data: Mapping[str, float | None], key: str, sign: str = "", digits: int = 2) -> str:
    """Return a value with its interval, such as ``0.31 [0.23, 0.41]``."""
    value, low, high = (_short(data.get(name), f"{sign}.{digits}f") for name in (key, "low", "high"))
    return f"{value} [{low}, {high}]"


def _short(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def base_against_tuned(evaluations: Mapping[int, Answers]) -> list[str]:
    """Return the final comparison of base and tuned model; empty without evaluations both before and after training."""
    last = max(evaluations, default=0)
    if last == 0 or 0 not in evaluations:
        return []
    shown = on_one_rule({step: evaluations[step] for step in (0, last)})
    base, tuned = shown[0], shown[last]
    rows = [
        ["base", interval(base["greedy"], "accuracy"), interval(base["sampled"], "accuracy")],
        [f"tuned, step {last}", interval(tuned["greedy"], "accuracy"), interval(tuned["sampled"], "accuracy")],
    ]
    differences = [tuned.get("difference"), tuned.get("difference_sampled")]
    if any(differences):
        rows.append(["difference", *(interval(item, "mean", "+") if item else "-" for item in differences)])
    problems = f"share of {tuned['problems']} held-out problems answered right, with 95 % intervals"
    notes = [f"{who}, {note}" for who, data in (("base", base), ("tuned", tuned)) for note in evaluation_notes(data)]
    return [problems, *(f"  {line}" for line in [*table(["", "greedy", "sampled"], rows), *notes])]
