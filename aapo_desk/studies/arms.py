"""What a study compares: arms that differ in one setting, with the same prompts, problems and budget."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from aapo_desk import launch, presets
from aapo_desk.config import METHODS, ConfigError, Problem, RunConfig, resolve
from aapo_desk.studies.comparison import MOST_RUNS

BudgetKind = Literal["steps", "seconds", "completions"]
ALGORITHM = "algorithm.name"
ENOUGH_STEPS = 1_000_000
"""Planned where something else ends the run."""

FIXED = ("task", "rewards", "evaluation", "run")
"""Sections that arms are measured by, or that the study sets."""

MEASURED_BY = "must be the same in all arms: it is what they are measured by, or the study sets it"


@dataclass(frozen=True)
class Arm:
    """One of what is compared: its label, and the configuration of its first run as the preset has it."""

    label: str
    config: RunConfig


@dataclass(frozen=True)
class Budget:
    """What is the same in all arms. ``amount`` None: the seconds that the first run takes for the preset's steps.

    ``problems``: how many there are to train on, which bounds what a banked reference samples.
    """

    kind: BudgetKind
    amount: float | None
    problems: float = math.inf

    @property
    def words(self) -> str:
        """``640 sampled completions``"""
        what = {"steps": "steps", "seconds": "seconds of training", "completions": "sampled completions"}[self.kind]
        return f"{self.amount:g} {what}" if self.amount is not None else "the seconds of training of the first run"


def make_arms(preset: str, settings: Mapping[str, Any], varied: str, values: Sequence[Any]) -> list[Arm]:
    """An arm a value of the setting ``varied``. Raises ConfigError for all that can be refused without a model."""
    option = "--algorithms" if varied == ALGORITHM else "--vary"
    labels = [label_of(value) for value in values]
    _check_values(option, varied, labels)
    for path in settings:
        if path == varied:
            raise ConfigError(
                Problem(path, f"is what the arms differ in ({option}); leave it out", settings[path], "--set")
            )
        if path in ("run.seconds", "run.completions"):
            message = "is set by the study; give --budget and --amount"
            raise ConfigError(Problem(path, message, settings[path], "--set"))
    presets.find(preset)
    arms = []
    for label, value in zip(labels, values, strict=True):
        try:
            config = presets.load(preset, {**settings, varied: value})
            launch.check(config)
            launch.find_start(config)
        except ConfigError as error:
            raise _of_arm(error, label, {varied: option}) from None
        arms.append(Arm(label, launch.with_absolute_paths(config)))
    if not arms[0].config.evaluated_problems:
        message = "a study compares by held-out problems; keep some, with task.held_out and evaluation.problems"
        raise ConfigError(Problem("evaluation.problems", message, arms[0].config.evaluation.problems))
    return arms


def label_of(value: Any) -> str:
    """A setting's value in a word, fit for a run's name."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(character if character.isprintable() and character not in "/\\" else "-" for character in text)


def _check_values(option: str, varied: str, labels: Sequence[str]) -> None:
    given = ",".join(labels)
    if varied == ALGORITHM and (unknown := next((label for label in labels if label not in METHODS), None)):
        close = difflib.get_close_matches(unknown, METHODS, n=1, cutoff=0.5)
        message = f"there is no such algorithm; there are {', '.join(METHODS)}"
        raise ConfigError(Problem(option, message, unknown, nearest=close[0] if close else None))
    if varied.partition(".")[0] in FIXED:
        raise ConfigError(Problem(varied, MEASURED_BY, None, option))
    if len(labels) < 2:
        raise ConfigError(Problem(option, "a study compares at least two arms; give two or more, with commas", given))
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ConfigError(Problem(option, f"{twice} is there twice; leave one out", given))
    if len(labels) > MOST_RUNS:
        raise ConfigError(Problem(option, f"{MOST_RUNS} arms are the most; leave some out", given))


def _of_arm(error: ConfigError, label: str, options: Mapping[str, str] = MappingProxyType({})) -> ConfigError:
    """The same refusals, with the arm that they are of, and the option that a setting in ``options`` comes from."""
    problems = []
    for one in error.problems:
        origin = options.get(one.path, one.origin) if one.origin else ""
        problems.append(replace(one, origin=f"{origin}, arm {label}" if origin else f"arm {label}"))
    return ConfigError(*problems)


def make_budget(kind: BudgetKind, amount: float | None, arms: Sequence[Arm], problems: float = math.inf) -> Budget:
    """The budget, by default what the preset's steps take with the first arm. Raises ConfigError for one of nothing."""
    if amount is not None and (not math.isfinite(amount) or amount <= 0):
        raise ConfigError(Problem("--amount", "must be above 0", amount))
    if amount is not None and kind != "seconds" and amount != int(amount):
        raise ConfigError(Problem("--amount", f"{kind} are counted: must be a whole number", amount))
    first = arms[0].config
    if amount is None and kind != "seconds":
        amount = first.run.steps if kind == "steps" else completions(first, first.run.steps, problems)
    budget = Budget(kind, amount, problems)
    for arm in arms:
        if kind == "completions" and steps_within(arm.config, budget) < 1:
            message = f"the first step of {arm.label} alone samples {completions(arm.config, 1, problems)}; give more"
            raise ConfigError(Problem("--amount", message, int(amount or 0)))
        run_config(arms, arm, first.run.seed, budget)
    return budget


def run_config(arms: Sequence[Arm], arm: Arm, seed: int, budget: Budget) -> RunConfig:
    """The configuration of an arm's run with this seed, within the budget. Raises ConfigError."""
    changes: dict[str, Any] = {"run.seed": seed}
    if budget.kind == "steps":
        changes["run.steps"] = int(budget.amount or 0)
    elif budget.kind == "seconds" and budget.amount is not None:
        changes |= {"run.steps": ENOUGH_STEPS, "run.seconds": budget.amount}
    elif budget.kind == "completions":
        changes["run.steps"] = steps_within(arm.config, budget)
        if refills(arm.config):
            changes["run.completions"] = int(budget.amount or 0)
    if without_schedule(arms, budget):
        changes["optimizer.schedule"] = "constant"
    try:
        return resolve(arm.config.model_dump(mode="json"), changes)
    except ConfigError as error:
        raise _of_arm(ConfigError(*(replace(one, origin="") for one in error.problems)), arm.label) from None


def without_schedule(arms: Sequence[Arm], budget: Budget) -> bool:
    """Whether some run's last step is not known before, so that the learning rate is constant in all of them."""
    return budget.kind == "seconds" or (budget.kind == "completions" and any(refills(arm.config) for arm in arms))


def completions(config: RunConfig, steps: int, problems: float = math.inf) -> int:
    """How many a run samples, those of a fresh reference too; of a banked one a group for each different problem.

    The bank is taken to be empty, whatever it holds from runs before. Refills are not known before, and not counted.
    """
    rollout = config.rollout
    asked = steps * rollout.prompts_per_step
    reference = 0.0 if not config.algorithm.method.has_margin else asked if _fresh(config) else min(asked, problems)
    return int((asked + reference) * rollout.group_size)


def steps_within(config: RunConfig, budget: Budget) -> int:
    """The most steps whose completions are within the budget."""
    amount = int(budget.amount or 0)
    prompts, group = config.rollout.prompts_per_step, config.rollout.group_size
    if not config.algorithm.method.has_margin:
        return amount // (prompts * group)
    steps = amount // (2 * prompts * group)
    if not _fresh(config) and math.isfinite(budget.problems):  # once all are banked, a step samples the policy alone
        return max(steps, int(amount - budget.problems * group) // (prompts * group))
    return steps


def _fresh(config: RunConfig) -> bool:
    return config.algorithm.reference == "fresh"


def refills(config: RunConfig) -> bool:
    """Whether a step may sample more than was planned."""
    return bool(config.algorithm.own_options.get("max_refills"))
