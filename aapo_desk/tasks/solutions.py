"""Worked solutions for a warm start: which training problems are used, and the text that the model learns to write.

The text is what a perfect policy would write after the prompt: the problem's solution unchanged, or
``warm_start.template`` filled in. The task writes its solutions in the form of answer that the question asks for. The
rewards score the texts before the model learns from them, which shows whether the rewards accept this form.
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
"""The placeholders of a template."""
FINAL = "####"
"""The mark before the final answer in GSM8K's solutions."""


@dataclass(frozen=True)
class Worked:
    """The solutions of a warm start. ``too_long`` counts the solutions that were left out for their length."""

    places: list[int]
    """The indices of their problems among the training problems."""
    texts: list[str]
    tokens: list[list[int]]
    """The tokens of each text, without the end-of-sequence token."""
    too_long: int

    def words(self) -> str:
        """Return a short description of the solutions, for a log line."""
        left_out = f"; {self.too_long} longer than rollout.max_new_tokens were left out" if self.too_long else ""
        return f"warm start: {len(self.texts)} worked solutions, up to {self.longest} tokens{left_out}"

    @property
    def longest(self) -> int:
        """Length of the longest solution in tokens, including the end-of-sequence token."""
        return max(map(len, self.tokens)) + 1


def check(config: WarmStartConfig) -> None:
    """Check the template. Raises ConfigError if it cannot be filled in."""
    template = config.template
    if template is None:
        return
    path = "warm_start.template"
    try:
        plain_template(template, (), NAMES)
    except ValueError as error:
        raise ConfigError(Refusal(path, str(error), template)) from None
    if not _names_in(template):
        raise ConfigError(
            Refusal(path, "must contain {solution} or {answer}, else it is the same for every problem", template)
        )


def choose(tokenizer: Tokenizer, problems: Sequence[Problem], config: RunConfig) -> Worked | None:
    """Choose the solutions of a run's warm start from the training problems, by the run's seed.

    Returns None without a warm start. The problems stay among the training problems. Raises ConfigError as ``check``
    does, and if fewer than ``warm_start.solutions`` solutions fit in ``rollout.max_new_tokens`` tokens.
    """
    wanted = config.warm_start.solutions
    if not wanted:
        return None
    check(config.warm_start)
    if wanted > len(problems):
        message = f"there are only {len(problems)} problems to train on; use at most {len(problems)} solutions"
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
    """Return the text that the model learns to write, or "" if the problem lacks a value of the template."""
    if template is None:
        return problem.solution
    values = {"solution": problem.solution.partition(FINAL)[0].rstrip(), "answer": problem.answer}
    return template.format(**values) if all(values[name] for name in _names_in(template)) else ""


def _too_few(config: RunConfig, lengths: Sequence[int], usable: int) -> Refusal:
    wanted, source = config.warm_start.solutions, config.task.source
    if not lengths:
        column = config.task.solution_column
        has = f"the column {column} has no text" if column else f"{source} has no worked solutions"
        name = "" if source.startswith("reasoning-gym:") else "name their column with task.solution_column, or "
        message = f"{has}; {name}train on the answer alone: --set 'warm_start.template={{answer}}'"
        return Refusal("warm_start.solutions", message, wanted)
    if usable < len(lengths):
        message = (
            f"only {usable} of {len(lengths)} worked solutions fit in rollout.max_new_tokens "
            f"({config.rollout.max_new_tokens}), with the end-of-sequence token; the shortest has {min(lengths)} tokens"
        )
    else:
        message = f"only {usable} of the problems to train on have a worked solution"
    return Refusal("warm_start.solutions", message, wanted)
