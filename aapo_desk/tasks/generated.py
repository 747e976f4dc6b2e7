"""Code shared by the tasks that generate problems: options, operation signs as users write them, templates."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from string import Formatter
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.config import Problem as Refusal
from aapo_desk.tasks.records import TaskData

# The names that users write for an operation, and its sign.
SIGNS = {
    **dict.fromkeys(("+", "plus", "add", "addition", "sum"), "+"),
    **dict.fromkeys(("-", "−", "–", "minus", "subtract", "subtraction", "difference"), "-"),
    **dict.fromkeys(("*", "×", "·", "⋅", "x", "times", "multiply", "multiplication", "product"), "*"),
    **dict.fromkeys(("/", "÷", ":", "divide", "division", "quotient"), "/"),
}

Options = TypeVar("Options", bound=BaseModel)


class Generator(Protocol):
    """The interface of the module of a task that generates problems."""

    def check(self, config: TaskConfig) -> object:
        """Check the options without generating problems. Raises ConfigError for invalid options."""

    def load(self, config: TaskConfig, seed: int) -> TaskData:
        """Generate the problems, the same for the same seed in every process. Raises ConfigError."""


def signs(value: Any, allowed: Collection[str]) -> list[str]:
    """Return the distinct signs in a list or a text such as ``plus, minus`` or ``+-``. Raises ValueError for others."""
    known = {word: sign for word, sign in SIGNS.items() if sign in allowed}
    words: list[str] = []
    for item in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(item, str):
            raise ValueError(f"must be a list of {in_words(allowed)}")
        for word in re.split(r"[\s,;]+", item.strip().lower()):
            words += [word] if word in known or not set(word) <= known.keys() else list(word)
    unknown = [word for word in words if word not in known]
    if unknown or not words:
        reason = f"unknown operation {', '.join(unknown)}; " if any(unknown) else ""
        raise ValueError(f"{reason}must be a list of {in_words(allowed)}")
    return list(dict.fromkeys(known[word] for word in words))


def in_words(items: Collection[str]) -> str:
    """Return the items as a list in words, such as ``+, - and *``."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


def plain_template(template: str, needed: Collection[str], allowed: Collection[str]) -> str:
    """Return the template if it is valid: it contains all ``needed`` names in braces, and no names but these and the
    ``allowed`` ones. Raises ValueError for any other template.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"has unpaired braces ({error}); write {{{{ for a literal brace") from None
    names = {name for _, name, _, _ in parts if name is not None}
    decorated = any(spec or conversion for _, _, spec, conversion in parts)
    if decorated or not names <= {*needed, *allowed} or not names >= set(needed):
        must = f"must contain {_in_braces(needed)}, " if needed else ""
        raise ValueError(f"{must}may contain {_in_braces(allowed)}, and nothing else in braces")
    return template


def _in_braces(names: Collection[str]) -> str:
    return in_words([f"{{{name}}}" for name in names])


def options_of(model: type[Options], config: TaskConfig) -> Options:
    """Parse ``task.options`` as the task's own options. Raises ConfigError for invalid options and for a split."""
    if config.split is not None:
        message = f"{config.source} is generated and has no splits; remove this setting"
        raise ConfigError(Refusal("task.split", message, config.split))
    try:
        return model.model_validate(config.options)
    except ValidationError as error:
        raise ConfigError(*(_refusal(model, config.source, detail) for detail in error.errors())) from None


def _refusal(model: type[BaseModel], source: str, detail: Mapping[str, Any]) -> Refusal:
    """Return a pydantic error as a refusal worded for the user."""
    name = str(detail["loc"][0])
    path = ".".join(["task.options", *map(str, detail["loc"])])
    if detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, model.model_fields, n=1)
        message = f"{source} has no such option; its options are {', '.join(model.model_fields)}"
        return Refusal(path, message, None, nearest=f"task.options.{close[0]}" if close else None)
    if detail["type"] == "value_error":
        return Refusal(path, str(detail["ctx"]["error"]), detail["input"])
    return Refusal(path, re.sub(r"^(Input|List) should", "must", detail["msg"]), detail["input"])
