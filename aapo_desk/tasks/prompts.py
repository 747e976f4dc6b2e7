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
    """Problems whose prompts have a length that is allowed, and those prompts, in the problems' order.

    ``too_long`` and ``too_short`` count the others. ``longest`` is the longest prompt kept (0 where none is),
    ``shortest`` and ``longest_of_all`` are of all that were rendered, in tokens.
    """

    problems: list[Problem]
    prompts: list[list[int]]
    too_long: int
    too_short: int
    longest: int
    shortest: int
    longest_of_all: int

    @property
    def dropped(self) -> int:
        return self.too_long + self.too_short


def render(tokenizer: Tokenizer, problem: Problem, task: TaskConfig, template_options: Mapping[str, Any]) -> list[int]:
    """The prompt's tokens: system prompt and problem in the chat template, up to where the answer begins.

    The task's system prompt takes the place of one that a conversation brings. Without a chat template it is the plain
    text of all that is said. Raises ConfigError where the template refuses.
    """
    system = task.system_prompt
    said = [turn for turn in problem.before if system is None or turn.role != "system"]
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages += [{"role": turn.role, "content": turn.content} for turn in said]
    messages.append({"role": "user", "content": problem.problem})
    if tokenizer.chat_template is None:
        text = "\n\n".join(message["content"] for message in messages)
        return [int(token) for token in tokenizer.encode(f"{text}\n")]
    # The user's options first: what makes it a prompt at all is not theirs to change.
    options = {**template_options, "add_generation_prompt": True, "tokenize": True, "return_dict": False}
    from jinja2 import TemplateError

    try:
        tokens = tokenizer.apply_chat_template(messages, **options)
    except TemplateError as error:
        message = f"the model's chat template refuses it: {error}"
        if problem.before:
            roles = ", ".join(str(said["role"]) for said in messages)
            text = f"{message}; the conversation of {problem.id} is {roles}"
            raise ConfigError(Refusal("task.problem_column", text, task.problem_column)) from error
        path = "model.chat_template_options" if system is None else "task.system_prompt"
        raise ConfigError(Refusal(path, message, system)) from error
    return [int(token) for token in tokens]


def fit(
    tokenizer: Tokenizer, problems: Sequence[Problem], task: TaskConfig, template_options: Mapping[str, Any]
) -> Fit:
    """The problems with a prompt of ``task.min_prompt_tokens`` to ``task.max_prompt_tokens`` tokens, rendered."""
    rendered = [(problem, render(tokenizer, problem, task, template_options)) for problem in problems]
    lengths = [len(prompt) for _, prompt in rendered]
    kept = [pair for pair in rendered if task.min_prompt_tokens <= len(pair[1]) <= task.max_prompt_tokens]
    return Fit(
        problems=[problem for problem, _ in kept],
        prompts=[prompt for _, prompt in kept],
        too_long=sum(length > task.max_prompt_tokens for length in lengths),
        too_short=sum(length < task.min_prompt_tokens for length in lengths),
        longest=max((len(prompt) for _, prompt in kept), default=0),
        shortest=min(lengths, default=0),
        longest_of_all=max(lengths, default=0),
    )


def refuse_empty(task: TaskConfig, fitted: Fit) -> None:
    """Raise ConfigError where there are prompts and none has an allowed length."""
    if fitted.problems or not fitted.dropped:
        return
    if not fitted.too_short:
        message = f"all {fitted.dropped} prompts are longer; the shortest has {fitted.shortest} tokens"
        raise ConfigError(Refusal("task.max_prompt_tokens", message, task.max_prompt_tokens))
    if fitted.too_long:
        rest = f"{fitted.too_short} of {fitted.dropped} prompts are shorter, the others longer than max_prompt_tokens"
    else:
        rest = f"all {fitted.dropped} prompts are shorter; the longest has {fitted.longest_of_all} tokens"
    raise ConfigError(Refusal("task.min_prompt_tokens", rest, task.min_prompt_tokens))
