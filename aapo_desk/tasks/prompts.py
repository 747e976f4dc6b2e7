"""Problems as the tokens a model is given, through the model's own chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.config import Problem as Refusal
from aapo_desk.tasks.records import Problem


class Tokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    chat_template: Any

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any: ...

    def encode(self, text: Any, *args: Any, **kwargs: Any) -> Any: ...


@dataclass(frozen=True)
class Fit:
    """Problems whose prompts are short enough, and those prompts, in the problems' order.

    ``dropped`` counts the others. ``longest`` is the longest prompt kept (0 where none is), ``shortest`` the
    shortest of all, both in tokens.
    """

    problems: list[Problem]
    prompts: list[list[int]]
    dropped: int
    longest: int
    shortest: int


def render(tokenizer: Tokenizer, problem: Problem, task: TaskConfig, template_options: Mapping[str, Any]) -> list[int]:
    """The prompt's tokens: system prompt and problem in the chat template, up to where the answer begins.

    Without a chat template it is the plain text of the two. Raises ConfigError where the template refuses.
    """
    system = task.system_prompt
    if tokenizer.chat_template is None:
        text = problem.problem if system is None else f"{system}\n\n{problem.problem}"
        return [int(token) for token in tokenizer.encode(f"{text}\n")]
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": problem.problem})
    # The user's options first: what makes it a prompt at all is not theirs to change.
    options = {**template_options, "add_generation_prompt": True, "tokenize": True, "return_dict": False}
    from jinja2 import TemplateError

    try:
        tokens = tokenizer.apply_chat_template(messages, **options)
    except TemplateError as error:
        path = "model.chat_template_options" if system is None else "task.system_prompt"
        raise ConfigError(Refusal(path, f"the model's chat template refuses it: {error}", system)) from error
    return [int(token) for token in tokens]


def fit(
    tokenizer: Tokenizer, problems: Sequence[Problem], task: TaskConfig, template_options: Mapping[str, Any]
) -> Fit:
    """The problems with a prompt of ``task.max_prompt_tokens`` tokens at the most, rendered."""
    rendered = [(problem, render(tokenizer, problem, task, template_options)) for problem in problems]
    lengths = [len(prompt) for _, prompt in rendered]
    kept = [(problem, prompt) for problem, prompt in rendered if len(prompt) <= task.max_prompt_tokens]
    return Fit(
        problems=[problem for problem, _ in kept],
        prompts=[prompt for _, prompt in kept],
        dropped=len(rendered) - len(kept),
        longest=max((len(prompt) for _, prompt in kept), default=0),
        shortest=min(lengths, default=0),
    )
