"""Ollama's Modelfile for a GGUF file: the chat template in Go's template language, the system prompt, stop texts.

A Jinja template cannot be translated in general. Instead, a conversation of marker texts is rendered, and the text
around the markers gives the text around each turn. If this does not reproduce the run's own prompts, the Modelfile gets
no template, and Ollama uses the one inside the GGUF file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Messages = Sequence[Mapping[str, str]]
SYSTEM, USER, ASSISTANT, AGAIN = "marksystem", "markuser", "markassistant", "markagain"


@dataclass(frozen=True)
class Turns:
    """The texts that a chat template puts around the turns of a conversation."""

    around: Mapping[str, tuple[str, str]]
    """For each role, the text before and after a turn."""
    answer: str
    """The text that starts the model's answer (the generation prompt)."""
    system: str | None
    """The system prompt that the template adds if the conversation has none."""

    def render(self, messages: Messages) -> str:
        """Render a conversation up to where the answer begins, as the Go template does."""
        if self.system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.system}, *messages]
        parts = [(*self.around[message["role"]], message["content"]) for message in messages]
        return "".join(before + text + after for before, after, text in parts) + self.answer

    def go_template(self) -> str:
        """Return the template in Go's template language, over Ollama's ``.Messages``."""
        branches = [
            f'{{{{ {"else " if number else ""}if eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}'
            for number, (role, (before, after)) in enumerate(self.around.items())
        ]
        return f"{{{{ range .Messages }}}}{''.join(branches)}{{{{ end }}}}{{{{ end }}}}{self.answer}"


def turns_of(tokenizer: Any, options: Mapping[str, Any], checked_by: Messages) -> Turns | None:
    """Derive the ``Turns`` of the tokenizer's chat template.

    Returns None if they do not reproduce the template for ``checked_by`` and some other conversations.
    """
    from jinja2 import TemplateError

    if tokenizer.chat_template is None:
        return None
    # llama.cpp, and so Ollama, adds the same beginning-of-sequence token that the tokenizer adds to every text.
    added = tokenizer.bos_token if tokenizer.encode("a")[0] == tokenizer.bos_token_id else ""

    def render(messages: Messages, answer: bool) -> str:
        asked = {**options, "add_generation_prompt": answer, "tokenize": False}
        return str(tokenizer.apply_chat_template(messages, **asked)).removeprefix(added)

    try:
        turns = _turns(render)
        if turns is None or _unsayable(turns):
            return None
        conversations = [checked_by, _said(USER), _said(USER, ASSISTANT, AGAIN), _said(SYSTEM, USER)]
        same = all(turns.render(messages) == render(messages, True) for messages in conversations)
    except (TemplateError, ValueError):
        return None
    return turns if same else None


def _said(*marks: str) -> Messages:
    roles = {SYSTEM: "system", ASSISTANT: "assistant"}
    return [{"role": roles.get(mark, "user"), "content": mark} for mark in marks]


def _turns(render: Callable[[Messages, bool], str]) -> Turns | None:
    """Derive the turns from rendered markers. Raises ValueError if the template changes or drops a marker."""
    whole = render(_said(SYSTEM, USER, ASSISTANT, AGAIN), True)
    head, first, second, third, _ = _between(whole, SYSTEM, USER, ASSISTANT, AGAIN)
    after_user = render(_said(USER), False).rpartition(USER)[2]
    after_assistant = render(_said(USER, ASSISTANT), False).rpartition(ASSISTANT)[2]
    asked = render(_said(USER), True)
    opening, answer = asked.partition(USER)[0], asked.rpartition(USER)[2]
    if not (second.startswith(after_user) and third.startswith(after_assistant) and answer.startswith(after_user)):
        return None
    before_user = third.removeprefix(after_assistant)
    if not (first.endswith(before_user) and opening.endswith(before_user)):
        return None
    after_system = first.removesuffix(before_user)
    around = {
        "system": (head, after_system),
        "user": (before_user, after_user),
        "assistant": (second.removeprefix(after_user), after_assistant),
    }
    own = opening.removesuffix(before_user)
    system = own.removeprefix(head).removesuffix(after_system) if own else None
    return Turns(around, answer.removeprefix(after_user), system)


def _between(text: str, *marks: str) -> list[str]:
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            raise ValueError(f"{mark} is not in the text")
        parts.append(before)
    return [*parts, text]


def _unsayable(turns: Turns) -> bool:
    """Return whether a text contains characters with a meaning in Go templates or Modelfiles."""
    pieces = [*(piece for pair in turns.around.values() for piece in pair), turns.answer, turns.system or ""]
    return any(sign in piece for piece in pieces for sign in ("{{", "}}", '"""'))


def modelfile(file: str, turns: Turns | None, system: str | None, stops: Sequence[str]) -> str:
    """Return the Modelfile. ``system``: the run's own system prompt.

    The temperature is 0, because the accuracy was measured with greedy decoding.
    """
    lines = [f"FROM ./{file}"]
    if turns is not None:
        lines.append(f'TEMPLATE """{turns.go_template()}"""')
    else:
        lines.append("# No TEMPLATE: Ollama uses the chat template inside the GGUF file.")
    system = system if system is not None else turns.system if turns else None
    if system and '"""' not in system:
        lines.append(f'SYSTEM """{system}"""')
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in stops]
    lines.append("PARAMETER temperature 0")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
