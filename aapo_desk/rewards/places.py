"""Where in a completion its answer stands."""

from __future__ import annotations

import re

_TAG = re.compile(r"</?(?:think|answer)>")


def answer_place(text: str) -> str:
    """What stands in the last ``<answer>``, else what follows the last ``</think>``, else the whole text.

    What was only thought is no answer, unless nothing follows it. Tags that are left, such as one that was not closed,
    are read as spaces.
    """
    inside = last_between(text, "<answer>", "</answer>")
    if inside is None:
        after = text.rpartition("</think>")[2]
        inside = after if after.strip() else text
    return _TAG.sub(" ", inside)


def last_between(text: str, opening: str, closing: str) -> str | None:
    """What stands between the last ``closing`` and the ``opening`` before it; None where there is no such pair."""
    end = text.rfind(closing)
    start = text.rfind(opening, 0, max(0, end))
    return text[start + len(opening) : end] if start >= 0 else None
