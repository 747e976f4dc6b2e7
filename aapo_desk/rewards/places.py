"""Find the part of a completion that contains its answer."""

from __future__ import annotations

import re

_TAG = re.compile(r"</?(?:think|answer)>")


def answer_place(text: str) -> str:
    """Return the text inside the last ``<answer>``, else the text after the last ``</think>``, else the whole text.

    Text before ``</think>`` counts only if nothing follows the tag. Remaining tags, such as one that was not closed,
    become spaces.
    """
    inside = last_between(text, "<answer>", "</answer>")
    if inside is None:
        after = text.rpartition("</think>")[2]
        inside = after if after.strip() else text
    return _TAG.sub(" ", inside)


def last_between(text: str, opening: str, closing: str) -> str | None:
    """Return the text between the last ``closing`` and the ``opening`` before it, or None if there is no such pair."""
    end = text.rfind(closing)
    start = text.rfind(opening, 0, max(0, end))
    return text[start + len(opening) : end] if start >= 0 else None
