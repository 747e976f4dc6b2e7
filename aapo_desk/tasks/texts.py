"""Convert the values of a data set's columns to text: problems, answers, conversations."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from aapo_desk.tasks.records import Turn

# The role names that data sets use. "human" and "gpt" come from ShareGPT.
ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot"), "assistant"),
}
SHOWN_KEYS = 8
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")


def plain_text(value: Any) -> str:
    """Return a value as text: 42.0 becomes ``42``; None, a non-finite number and an empty list become "".

    Raises TypeError for a value that is neither text nor a number. Its message continues a sentence that begins with
    the row, as in "line 3 of file:a.jsonl ...".
    """
    if value is None or value == [] or (isinstance(value, float | Decimal) and not math.isfinite(value)):
        return ""
    if isinstance(value, float | Decimal) and value == int(value):
        return str(int(value))
    if isinstance(value, Mapping):
        keys = [str(key) for key in value]
        more = ", ..." if len(keys) > SHOWN_KEYS else ""
        raise TypeError(f"has nested values in this column ({', '.join(keys[:SHOWN_KEYS])}{more})")
    if isinstance(value, bytes | list | tuple):
        raise TypeError(f"has {'bytes' if isinstance(value, bytes) else 'a list'} in this column")
    # JSON may contain half of a surrogate pair, which cannot be encoded as UTF-8 later.
    return str(value).encode(errors="replace").decode().strip()


def answer_text(value: Any) -> str:
    """Return an answer as text: several answers are joined by commas, GSM8K's ``...#### 1,000`` becomes ``1000``.

    The answer of a conversation is the last message of the assistant. Raises TypeError as ``plain_text`` does.
    """
    if is_conversation(value):
        said = [turn.content for turn in turns(value) if turn.role == "assistant"]
        return _after_hashes(said[-1]) if said else ""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(answer_text, value)))
    return _after_hashes(plain_text(value))


def solution_text(value: Any) -> str:
    """Return a worked solution as text, without GSM8K's calculator marks (``48/2 = <<48/2=24>>24``).

    The solution of a conversation is the last message of the assistant. Raises TypeError as ``plain_text`` does.
    """
    if is_conversation(value):
        said = [turn.content for turn in turns(value) if turn.role == "assistant"]
        return said[-1] if said else ""
    return _CALCULATOR.sub("", plain_text(value))


def problem_text(value: Any) -> tuple[str, tuple[Turn, ...]]:
    """Return a problem as text, and the messages before it. The problem of a conversation is its last question.

    The messages after the question are the answer, or lead to it, and are left out. Raises TypeError as ``plain_text``
    does.
    """
    if not is_conversation(value):
        return plain_text(value), ()
    said = list(turns(value))
    while said and said[-1].role != "user":
        said.pop()
    return (said[-1].content, tuple(said[:-1])) if said else ("", ())


def is_conversation(value: Any) -> bool:
    """Return whether the value is a list of messages, each with ``role`` and ``content`` or ``from`` and ``value``.

    The second form is ShareGPT's.
    """
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(item, Mapping) and {"role", "from"} & item.keys() for item in value)
    )


def turns(messages: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Return the non-empty turns of a conversation. Raises TypeError for unknown roles and content that is not text."""
    said = []
    for message in messages:
        role = str(message.get("role") or message.get("from") or "")
        if role.lower() not in ROLES:
            raise TypeError(f"has a message with the role {role or 'none'}; allowed are system, user and assistant")
        content = _content(message.get("content", message.get("value")))
        if content:
            said.append(Turn(ROLES[role.lower()], content))
    return said


def _content(value: Any) -> str:
    """Return the content of a message: text, or the joined text of parts such as ``{"type": "text", "text": ...}``."""
    if not isinstance(value, list | tuple):
        return plain_text(value)
    parts = []
    for part in value:
        if isinstance(part, Mapping) and part.get("type", "text") != "text":
            raise TypeError(f"has a message with a part of the type {part['type']}; only text can be used")
        parts.append(plain_text(part.get("text") if isinstance(part, Mapping) else part))
    return "\n".join(filter(None, parts))


def _after_hashes(text: str) -> str:
    if "####" not in text:
        return text
    return re.sub(r"(?<=\d),(?=\d)", "", text.rpartition("####")[2].strip())
