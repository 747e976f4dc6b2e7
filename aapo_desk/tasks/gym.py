"""Problems that the package reasoning-gym makes up: ``reasoning-gym:NAME``, such as ``reasoning-gym:chain_sum``.

The package (Apache-2.0, https://github.com/open-thought/reasoning-gym) is an extra. Its problems come with a scorer of
their own, since many have more than one right answer: the reward ``reasoning_gym`` asks it. For that each problem
carries the recipe by which its generator makes it again.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import json
import warnings
from typing import Any

from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.config import Problem as Refusal
from aapo_desk.tasks.records import Problem, TaskData
from aapo_desk.tasks.tables import hold_out
from aapo_desk.tasks.texts import plain_text

PREFIX = "reasoning-gym:"
MISSING = "needs the package reasoning-gym: pip install 'aapo-desk[reasoning-gym]'"
DEFAULT_SIZE = 1000


def check(config: TaskConfig) -> None:
    """Raises ConfigError for what is wrong without the package, and where it is not installed."""
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ConfigError(Refusal("task.source", MISSING, config.source))
    if config.split is not None:
        message = f"{config.source} is generated and has no splits; leave it out"
        raise ConfigError(Refusal("task.split", message, config.split))
    _whole(config, "size", DEFAULT_SIZE, 1)
    _whole(config, "seed", 0, 0)


def load(config: TaskConfig, seed: int) -> TaskData:
    """``task.options.size`` problems to train on, fewer where the generator repeats itself, and the held-out ones.

    The same for the same seed (``task.options.seed``, else the run's) in every process. Raises ConfigError as ``check``
    does, and for a generator or options that the package does not know.
    """
    check(config)
    size = _whole(config, "size", DEFAULT_SIZE, 1) + config.held_out
    recipe = {
        "name": config.source.removeprefix(PREFIX),
        "seed": _whole(config, "seed", seed, 0),
        "size": size,
        "options": {name: value for name, value in config.options.items() if name not in ("size", "seed")},
    }
    made = _dataset(config, recipe)
    problems = []
    for index in range(size):
        entry = made[index]
        text, answer = plain_text(entry["question"]), plain_text(entry["answer"])
        # Where several answers are right, some generators give none; their scorer knows.
        problem = Problem(f"{recipe['name']}-{index}", text, answer, recipe=json.dumps(recipe | {"index": index}))
        problems.append(problem)
    train, held_out = hold_out(config, problems, seed)
    return TaskData(train, held_out)


def _whole(config: TaskConfig, name: str, default: int, least: int) -> int:
    value = config.options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(Refusal(f"task.options.{name}", f"must be a whole number of at least {least}", value))
    return value


def _dataset(config: TaskConfig, recipe: dict[str, Any]) -> Any:
    """The generator. Raises ConfigError where there is none of the name, or not with these options."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of what it imports is written for older Pythons
        import reasoning_gym
        from reasoning_gym.factory import DATASETS

    if recipe["name"] not in DATASETS:
        close = difflib.get_close_matches(recipe["name"], DATASETS, n=1)
        message = f"reasoning-gym has no generator of this name; it has {len(DATASETS)}, listed in its GALLERY.md"
        raise ConfigError(
            Refusal("task.source", message, config.source, nearest=f"{PREFIX}{close[0]}" if close else None)
        )
    known = [field.name for field in dataclasses.fields(DATASETS[recipe["name"]][1])]
    for name in recipe["options"]:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            message = f"{config.source} has no such option; it has {', '.join(known)}"
            nearest = f"task.options.{close[0]}" if close else None
            raise ConfigError(Refusal(f"task.options.{name}", message, None, nearest=nearest))
    try:
        return reasoning_gym.create_dataset(
            recipe["name"], seed=recipe["seed"], size=recipe["size"], **recipe["options"]
        )
    except (AssertionError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(Refusal("task.options", f"{config.source} refuses them: {reason}", config.options)) from error
