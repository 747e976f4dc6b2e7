"""The arms of a study, which differ in one setting and share prompts, problems and budget."""

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
"""The planned number of steps if something else ends the run."""

FIXED = ("task", "rewards", "evaluation", "run")
"""Config sections that must be equal in all arms, because the arms are measured by them or the study sets them."""

MEASURED_BY = "must be the same in all arms, because they are measured by it or the study sets it"


@dataclass(frozen=True)
class Arm:
    """One of the compared variants: its label, and its configuration as derived from the preset."""

    label: str
    config: RunConfig


@dataclass(frozen=True)
class Budget:
    """The budget that every run of a study gets.

    If ``amount`` is None, it will be the seconds that the first run takes for the preset's steps.
    ``problems`` is the number of training problems, which bounds what a reference with the value ``bank`` samples.
    """

    kind: BudgetKind
    amount: float | None
    problems: float = math.inf

    @property
    def words(self) -> str:
        """The budget as text, such as ``640 sampled completions``."""
        what = {"steps": "steps", "seconds": "seconds of training", "completions": "sampled completions"}[self.kind]
        return f"{self.amount:g} {what}" if self.amount is not None else "the seconds of training of the first run"


def make_arms(preset: str, settings: Mapping[str, Any], varied: str, values: Sequence[Any]) -> list[Arm]:
    """Return one arm for each value of the setting ``varied``.

    Raises ConfigError for everything that can be refused without loading a model.
    """
    option = "--algorithms" if varied == ALGORITHM else "--vary"
    labels = [label_of(value) for value in values]
    _check_values(option, varied, labels)
    for path in settings:
        if path == varied:
            raise ConfigError(
                Problem(path, f"already varies between the arms ({option}); remove it here", settings[path], "--set")
            )
        if path in ("run.seconds", "run.completions"):
            message = "is set by the study; use --budget and --amount instead"
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
        message = "a study compares accuracy on held-out problems; hold some out with task.held_out and "
        message += "evaluation.problems"
        raise ConfigError(Problem("evaluation.problems", message, arms[0].config.evaluation.problems))
    return arms


def label_of(value: Any) -> str:
    """Return a setting's value as text that is valid in a run's name."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(character if character.isprintable() and character not in "/\\" else "-" for character in text)


def _check_values(option: str, varied: str, labels: Sequence[str]) -> None:
    given = ",".join(labels)
    if varied == ALGORITHM and (unknown := next((label for label in labels if label not in METHODS), None)):
        close = difflib.get_close_matches(unknown, METHODS, n=1, cutoff=0.5)
        message = f"there is no such algorithm; available are {', '.join(METHODS)}"
        raise ConfigError(Problem(option, message, unknown, nearest=close[0] if close else None))
    if varied.partition(".")[0] in FIXED:
        raise ConfigError(Problem(varied, MEASURED_BY, None, option))
    if len(labels) < 2:
        raise ConfigError(Problem(option, "a study needs two or more arms; separate them with commas", given))
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ConfigError(Problem(option, f"contains {twice} twice; remove one", given))
    if len(labels) > MOST_RUNS:
        raise ConfigError(Problem(option, f"at most {MOST_RUNS} arms are possible; remove some", given))


def _of_arm(error: ConfigError, label: str, options: Mapping[str, str] = MappingProxyType({})) -> ConfigError:
    """Return the error with the arm's label added to each problem, and the option that set it if ``options`` has it."""
    problems = []
    for one in error.problems:
        origin = options.get(one.path, one.origin) if one.origin else ""
        problems.append(replace(one, origin=f"{origin}, arm {label}" if origin else f"arm {label}"))
    return ConfigError(*problems)


def make_budget(kind: BudgetKind, amount: float | None, arms: Sequence[Arm], problems: float = math.inf) -> Budget:
    """Return the budget, by default what the first arm needs for the preset's steps.

    Raises ConfigError for an amount that is not valid or does not allow a single step.
    """
    if amount is not None and (not math.isfinite(amount) or amount <= 0):
        raise ConfigError(Problem("--amount", "must be above 0", amount))
    if amount is not None and kind != "seconds" and amount != int(amount):
        raise ConfigError(Problem("--amount", f"must be a whole number of {kind}", amount))
    first = arms[0].config
    if amount is None and kind != "seconds":
        amount = first.run.steps if kind == "steps" else completions(first, first.run.steps, problems)
    budget = Budget(kind, amount, problems)
    for arm in arms:
        if kind == "completions" and steps_within(arm.config, budget) < 1:
            message = f"the first step of {arm.label} alone samples {completions(arm.config, 1, problems)}; raise it"
            raise ConfigError(Problem("--amount", message, int(amount or 0)))
        run_config(arms, arm, first.run.seed, budget)
    return budget


def run_config(arms: Sequence[Arm], arm: Arm, seed: int, budget: Budget) -> RunConfig:
    """Return the configuration of an arm's run with this seed and within the budget. Raises ConfigError."""
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
    """Return whether any run's last step is unknown in advance, which makes the learning rate constant in all runs."""
    return budget.kind == "seconds" or (budget.kind == "completions" and any(refills(arm.config) for arm in arms))


def completions(config: RunConfig, steps: int, problems: float = math.inf) -> int:
    """Return the number of completions that a run samples, including those of the reference.

    A fresh reference samples a group for every prompt; the reference cache (``bank``) one for each different problem.
    The cache is assumed to be empty, whatever earlier runs left in it. Refills are not known in advance and not
    counted.
    """
    rollout = config.rollout
    asked = steps * rollout.prompts_per_step
    reference = 0.0 if not config.algorithm.method.has_margin else asked if _fresh(config) else min(asked, problems)
    return int((asked + reference) * rollout.group_size)


def steps_within(config: RunConfig, budget: Budget) -> int:
    """Return the maximum number of steps whose completions are within the budget."""
    amount = int(budget.amount or 0)
    prompts, group = config.rollout.prompts_per_step, config.rollout.group_size
    if not config.algorithm.method.has_margin:
        return amount // (prompts * group)
    steps = amount // (2 * prompts * group)
    # Once all problems are in the reference cache, a step samples only the policy.
    if not _fresh(config) and math.isfinite(budget.problems):
        return max(steps, int(amount - budget.problems * group) // (prompts * group))
    return steps


def _fresh(config: RunConfig) -> bool:
    return config.algorithm.reference == "fresh"


def refills(config: RunConfig) -> bool:
    """Return whether a step may sample more completions than planned."""
    return bool(config.algorithm.own_options.get("max_refills"))
