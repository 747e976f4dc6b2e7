"""Values of a data set's columns as text: problems, answers, conversations."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from aapo_desk.tasks.records import Turn

# Who speaks, as data sets write it; human and gpt are ShareGPT's.
ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot"), "assistant"),
}
SHOWN_KEYS = 8
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")


def plain_text(value: Any) -> str:
    """A value as text: 42.0 as ``42``; nothing (none, not a number, an empty list) as the empty text.

    Raises TypeError for what is no text or number, in words that follow "the row".
    """
    if value is None or value == [] or (isinstance(value, float | Decimal) and not math.isfinite(value)):
        return ""
    if isinstance(value, float | Decimal) and value == int(value):
        return str(int(value))
    if isinstance(value, Mapping):
        keys = [str(key) for key in value]
        more = ", ..." if len(keys) > SHOWN_KEYS else ""
        raise TypeError(f"holds nested values there ({', '.join(keys[:SHOWN_KEYS])}{more})")
    if isinstance(value, bytes | list | tuple):
        raise TypeError(f"holds {'bytes' if isinstance(value, bytes) else 'a list'} there")
    # Half of a surrogate pair can stand in JSON, but in no UTF-8 that comes after.
    return str(value).encode(errors="replace").decode().strip()


def answer_text(value: Any) -> str:
    """An answer as text: several answers joined by commas, GSM8K's ``...#### 1,000`` as ``1000``.

    Of a conversation it is the last thing that the assistant says. Raises TypeError as ``plain_text`` does.
    """
    if is_conversation(value):
        said = [turn.content for turn in turns(value) if turn.role == "assistant"]
        return _after_hashes(said[-1]) if said else ""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(answer_text, value)))
    return _after_hashes(plain_text(value))


def solution_text(value: Any) -> str:
    """A worked solution as text, without the calculator's marks in GSM8K's: ``48/2 = <<48/2=24>>24``.

    Of a conversation it is the last thing that the assistant says. Raises TypeError as ``plain_text`` does.
    """
    if is_conversation(value):
        said = [turn.content for turn in turns(value) if turn.role == "assistant"]
        return said[-1] if said else ""
    return _CALCULATOR.sub("", plain_text(value))


def problem_text(value: Any) -> tuple[str, tuple[Turn, ...]]:
    """A problem as text and what was said before it: of a conversation, its last question.

    What follows the question is the answer, or leads to it, and is left out. Raises TypeError as ``plain_text`` does.
    """
    if not is_conversation(value):
        return plain_text(value), ()
    said = list(turns(value))
    while said and said[-1].role != "user":
        said.pop()
    return (said[-1].content, tuple(said[:-1])) if said else ("", ())


def is_conversation(value: Any) -> bool:
    """True for a list of messages: ``role`` and ``content`` each, or ShareGPT's ``from`` and ``value``."""
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(item, Mapping) and {"role", "from"} & item.keys() for item in value)
    )


def turns(messages: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """The turns of a conversation that say anything. Raises TypeError for roles and contents that are not text."""
    said = []
    for message in messages:
        role = str(message.get("role") or message.get("from") or "")
        if role.lower() not in ROLES:
            raise TypeError(f"holds a message of the role {role or 'none'} there; there are system, user and assistant")
        content = _content(message.get("content", message.get("value")))
        if content:
            said.append(Turn(ROLES[role.lower()], content))
    return said


def _content(value: Any) -> str:
    """Text, or the text of a list of parts such as ``{"type": "text", "text": ...}``."""
    if not isinstance(value, list | tuple):
        return plain_text(value)
    parts = []
    for part in value:
        if isinstance(part, Mapping) and part.get("type", "text") != "text":
            raise TypeError(f"holds a message with a part of the type {part['type']} there; only text can be used")
        parts.append(plain_text(part.get("text") if isinstance(part, Mapping) else part))
    return "\n".join(filter(None, parts))


def _after_hashes(text: str) -> str:
    if "####" not in text:
        return text
    return re.sub(r"(?<=\d),(?=\d)", "", text.rpartition("####")[2].strip())
