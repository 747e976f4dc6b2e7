"""Turn problems into the tokens of a prompt, through the model's own chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.config import Problem as Refusal
from aapo_desk.tasks.records import Problem


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    chat_template: Any

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any: ...

    def encode(self, text: Any, *args: Any, **kwargs: Any) -> Any: ...


@dataclass(frozen=True)
class Fit:
    """The problems whose prompts have an allowed length, and these prompts, in the same order.

    ``too_long`` and ``too_short`` count the other problems. ``longest`` is the length of the longest prompt kept, in
    tokens (0 if none is kept). ``shortest`` and ``longest_of_all`` are lengths over all rendered prompts.
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
    """Return the tokens of a prompt: system prompt and problem in the chat template, up to where the answer begins.

    The task's system prompt replaces one in the conversation. Without a chat template, the prompt is the plain text of
    all messages. Raises ConfigError if the template refuses the messages.
    """
    system = task.system_prompt
    said = [turn for turn in problem.before if system is None or turn.role != "system"]
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages += [{"role": turn.role, "content": turn.content} for turn in said]
    messages.append({"role": "user", "content": problem.problem})
    if tokenizer.chat_template is None:
        text = "\n\n".join(message["content"] for message in messages)
        return [int(token) for token in tokenizer.encode(f"{text}\n")]
    # The user's options come first, so that they cannot override the options that make this a prompt.
    options = {**template_options, "add_generation_prompt": True, "tokenize": True, "return_dict": False}
    from jinja2 import TemplateError

    try:
        tokens = tokenizer.apply_chat_template(messages, **options)
    except TemplateError as error:
        message = f"the model's chat template refuses the prompt: {error}"
        if problem.before:
            roles = ", ".join(str(said["role"]) for said in messages)
            text = f"{message}; the roles in the conversation of {problem.id} are {roles}"
            raise ConfigError(Refusal("task.problem_column", text, task.problem_column)) from error
        path = "model.chat_template_options" if system is None else "task.system_prompt"
        raise ConfigError(Refusal(path, message, system)) from error
    return [int(token) for token in tokens]


def fit(
    tokenizer: Tokenizer, problems: Sequence[Problem], task: TaskConfig, template_options: Mapping[str, Any]
) -> Fit:
    """Render the prompts and keep those of ``task.min_prompt_tokens`` to ``task.max_prompt_tokens`` tokens."""
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
    """Raise ConfigError if there are prompts but none has an allowed length."""
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
