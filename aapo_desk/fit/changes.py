"""Finding the smallest changes of a configuration that make a run fit, cheapest first.

Every suggestion is found by judging the changed configuration, so it is certain to pass ``judge``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aapo_desk.config import ModelConfig, RunConfig, resolve
from aapo_desk.fit.verdict import Fit, Room, judge, shape_of
from aapo_desk.memory import ModelShape, known_config, known_models

LENGTH_STEP = 16
"""Tokens by which a length is shortened in each step."""

LEAST_SHARE = 4
"""A length is shortened to no less than a quarter, since that would be a different task."""

RANK_STEP = 4
"""A lowered rank is always a multiple of this."""

SIZE = re.compile(r"(?<![0-9.])[0-9]+(?:\.[0-9]+)?[bm](?![a-z])", re.IGNORECASE)
"""A model's size in its name, as in Qwen3-1.7B."""

Values = Mapping[str, Any]
"""Values by config path."""


@dataclass(frozen=True)
class Change:
    """Settings that together make a run fit, a description of their costs, and the resulting fit."""

    values: Values
    costs: tuple[str, ...]
    fit: Fit


@dataclass(frozen=True)
class Lever:
    """Something that can be given up to save memory."""

    cost: str
    steps: Callable[[RunConfig], Sequence[Values]]
    """Returns the possible changes, smallest first; empty if there is nothing to give up."""


def remedies(shape: ModelShape, config: RunConfig, room: Room) -> list[Change]:
    """Return changes each of which is enough by itself, cheapest first; empty if nothing helps.

    If no single lever is enough, the first change combines several. The last one is a smaller model of the same
    family, if one is known.
    """

    def fitting(values: Values) -> Fit | None:
        fit = judge(shape, resolve(config.model_dump(mode="json"), values), room)
        return fit if fit.verdict != "too large" else None

    steps = [(lever.cost, lever.steps(config)) for lever in LEVERS]
    usable = [(cost, values) for cost, values in steps if values]
    alone = [Change(values, (cost,), fit) for cost, all_ in usable for values, fit in _smallest(all_, {}, fitting)]
    found = alone or _together(usable, fitting)
    return [*found, *_smaller_model(config, room)]


Fitting = Callable[[Values], Fit | None]


def _smallest(steps: Sequence[Values], others: Values, fitting: Fitting) -> list[tuple[Values, Fit]]:
    """Return the smallest of these steps that fits together with ``others``; empty if even the largest does not."""
    if fitting({**others, **steps[-1]}) is None:
        return []
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2
        if fitting({**others, **steps[middle]}) is not None:
            high = middle
        else:
            low = middle + 1
    fit = fitting({**others, **steps[high]})
    return [(steps[high], fit)] if fit else []


def _together(usable: Sequence[tuple[str, Sequence[Values]]], fitting: Fitting) -> list[Change]:
    """Combine as few of the cheapest levers as needed, and reduce each as far as possible, the costliest first."""
    for count in range(2, len(usable) + 1):
        taken = dict(usable[:count])
        values = {cost: steps[-1] for cost, steps in taken.items()}
        if fitting(_merged(values.values())) is not None:
            break
    else:
        return []
    for cost, steps in reversed(taken.items()):
        others = _merged(value for other, value in values.items() if other != cost)
        if fitting(others) is not None:
            del values[cost]
        else:
            values[cost] = _smallest(steps, others, fitting)[0][0]
    merged = _merged(values.values())
    fit = fitting(merged)
    return [Change(merged, tuple(values), fit)] if fit else []


def _merged(several: Iterable[Values]) -> dict[str, Any]:
    return {path: value for values in several for path, value in values.items()}


def _smaller_model(config: RunConfig, room: Room) -> list[Change]:
    """Return the largest smaller model of the same family that fits with all other settings unchanged."""
    for model in smaller(config.model.id, known_models()):
        fit = judge(shape_of(ModelConfig(id=model)), config, room)
        if fit.verdict != "too large":
            return [Change({"model.id": model}, ("a smaller, less capable model",), fit)]
    return []


def smaller(model: str, models: Iterable[str]) -> list[str]:
    """Return the ids of those models that are smaller and of the same family, largest first.

    The names in a family differ only in the size. A suffix after the size, such as -Instruct, is kept if a model of
    that name is known.
    """
    size = SIZE.search(model)
    if size is None:
        return []
    found = {}
    for other in models:
        its = SIZE.search(other)
        if its and other[: its.start()].lower() == model[: size.start()].lower() and _size(its) < _size(size):
            twin = model[: size.start()] + its.group() + model[size.end() :]
            found[twin if known_config(twin) else other] = _size(its)
    return sorted(found, key=lambda name: -found[name])


def _size(found: re.Match[str]) -> float:
    """Return the millions of parameters according to the name."""
    number, unit = found.group()[:-1], found.group()[-1].lower()
    return float(number) * (1000 if unit == "b" else 1)


def _plain_weights(config: RunConfig) -> list[Values]:
    return [{"rollout.weights": "adapter"}] if config.rollout.weights == "shadow" else []


def _sixteen_bits(config: RunConfig) -> list[Values]:
    return [{"model.compute_dtype": "auto"}] if config.model.compute_dtype in ("float32", "float64") else []


def _shorter_answers(config: RunConfig) -> list[Values]:
    """Return shorter answers in evaluations, down to the completions' length."""
    asked = config.evaluation.max_new_tokens
    return _shorter("evaluation.max_new_tokens", asked, config.rollout.max_new_tokens) if asked else []


def _shorter_prompts(config: RunConfig) -> list[Values]:
    limit = config.task.max_prompt_tokens
    return _shorter("task.max_prompt_tokens", limit, limit // LEAST_SHARE)


def _shorter_completions(config: RunConfig) -> list[Values]:
    limit = config.rollout.max_new_tokens
    return _shorter("rollout.max_new_tokens", limit, limit // LEAST_SHARE)


def _shorter(path: str, limit: int, least: int) -> list[Values]:
    """Return the multiples of ``LENGTH_STEP`` below the limit, down to ``least``."""
    longest = (limit - 1) // LENGTH_STEP * LENGTH_STEP
    return [{path: length} for length in range(longest, max(least, LENGTH_STEP) - 1, -LENGTH_STEP)]


def _lower_rank(config: RunConfig) -> list[Values]:
    """Return lower ranks with alpha in proportion, since the adapter's output is multiplied by alpha / r."""
    rank, alpha = config.lora.r, config.lora.alpha
    ranks = range((rank - 1) // RANK_STEP * RANK_STEP, 0, -RANK_STEP)
    return [{"lora.r": lower, "lora.alpha": max(1, round(alpha * lower / rank))} for lower in ranks]


def _four_bits(config: RunConfig) -> list[Values]:
    return [{"model.quantization": "nf4"}] if config.model.quantization == "none" else []


LEVERS = (
    Lever("a slower rollout", _plain_weights),
    Lever("computing in 16 bits if the device supports it well", _sixteen_bits),
    Lever("answers in evaluations are truncated earlier", _shorter_answers),
    Lever("problems with longer prompts are dropped", _shorter_prompts),
    Lever("completions are truncated earlier", _shorter_completions),
    Lever("an adapter with less capacity", _lower_rank),
    Lever("the base model's weights are quantized to 4 bits", _four_bits),
)
"""The levers, cheapest first. The number of rows computed at once is not one of them, since a run chooses it itself."""
