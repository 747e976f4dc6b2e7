"""Worked solutions for a warm start: of which training problems, and what the model is to write for them.

The text is what a perfect policy would write behind the prompt: the problem's solution as it stands, or
``warm_start.template`` filled in. The task writes it so that the question's form of answer is kept; whether the rewards
agree is seen when they score it, before anything is learned from it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter

from aapo_desk.config import ConfigError, RunConfig, WarmStartConfig
from aapo_desk.config import Problem as Refusal
from aapo_desk.tasks.generated import plain_template
from aapo_desk.tasks.prompts import Tokenizer
from aapo_desk.tasks.records import Problem

NAMES = ("solution", "answer")
"""What a template may hold in braces."""
FINAL = "####"
"""Before the final answer in GSM8K's solutions."""


@dataclass(frozen=True)
class Worked:
    """The solutions that are learned from. ``too_long``: solutions met on the way that were left out."""

    places: list[int]
    """Of their problems, among those to train on."""
    texts: list[str]
    tokens: list[list[int]]
    """Without the one that ends a completion."""
    too_long: int

    def words(self) -> str:
        """Which they are, in half a sentence."""
        left_out = f"; {self.too_long} longer than rollout.max_new_tokens left out" if self.too_long else ""
        return f"warm start: {len(self.texts)} worked solutions, up to {self.longest} tokens{left_out}"

    @property
    def longest(self) -> int:
        """Tokens of the longest, its end counted."""
        return max(map(len, self.tokens)) + 1


def check(config: WarmStartConfig) -> None:
    """Raises ConfigError for a template that cannot be filled in."""
    template = config.template
    if template is None:
        return
    path = "warm_start.template"
    try:
        plain_template(template, (), NAMES)
    except ValueError as error:
        raise ConfigError(Refusal(path, str(error), template)) from None
    if not _names_in(template):
        raise ConfigError(Refusal(path, "must hold {solution} or {answer}: it is the same for every problem", template))


def choose(tokenizer: Tokenizer, problems: Sequence[Problem], config: RunConfig) -> Worked | None:
    """The solutions that a run learns from, of the problems to train on, by its seed; None without a warm start.

    They may come again in training. Raises ConfigError where there are fewer than ``warm_start.solutions`` that are at
    most ``rollout.max_new_tokens`` long, and as ``check`` does.
    """
    wanted = config.warm_start.solutions
    if not wanted:
        return None
    check(config.warm_start)
    if wanted > len(problems):
        message = f"there are {len(problems)} problems to train on, so {len(problems)} solutions at the most"
        raise ConfigError(Refusal("warm_start.solutions", message, wanted))
    order = list(range(len(problems)))
    random.Random(f"warm start {config.run.seed}").shuffle(order)
    found = Worked([], [], [], 0)
    lengths: list[int] = []
    for place in order:
        text = _text(problems[place], config.warm_start.template)
        if not text:
            continue
        tokens = [int(token) for token in tokenizer.encode(text, add_special_tokens=False)]
        lengths.append(len(tokens) + 1)
        if lengths[-1] > config.rollout.max_new_tokens:
            continue
        found.places.append(place)
        found.texts.append(text)
        found.tokens.append(tokens)
        if len(found.texts) == wanted:
            return Worked(found.places, found.texts, found.tokens, len(lengths) - wanted)
    raise ConfigError(_too_few(config, lengths, len(found.texts)))


def _names_in(template: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(template) if name]


def _text(problem: Problem, template: str | None) -> str:
    """What is to be written; empty where the problem does not have all that it takes."""
    if template is None:
        return problem.solution
    values = {"solution": problem.solution.partition(FINAL)[0].rstrip(), "answer": problem.answer}
    return template.format(**values) if all(values[name] for name in _names_in(template)) else ""


def _too_few(config: RunConfig, lengths: Sequence[int], usable: int) -> Refusal:
    wanted, source = config.warm_start.solutions, config.task.source
    if not lengths:
        column = config.task.solution_column
        has = f"the column {column} holds no text" if column else f"{source} has no worked solutions"
        name = "" if source.startswith("reasoning-gym:") else "name their column with task.solution_column, or "
        message = f"{has}; {name}let the answer alone be learned: --set 'warm_start.template={{answer}}'"
        return Refusal("warm_start.solutions", message, wanted)
    if usable < len(lengths):
        message = (
            f"only {usable} of {len(lengths)} worked solutions are at most rollout.max_new_tokens "
            f"({config.rollout.max_new_tokens}) long, their end counted; the shortest has {min(lengths)} tokens"
        )
    else:
        message = f"only {usable} of the problems to train on have a worked solution"
    return Refusal("warm_start.solutions", message, wanted)
