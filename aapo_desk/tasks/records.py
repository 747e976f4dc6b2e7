"""What a task is made of, once it is read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One problem with its right answer. ``id`` names it within its task, such as ``3+4`` or ``test-17``."""

    id: str
    problem: str
    answer: str


@dataclass(frozen=True)
class TaskData:
    """Problems to train on and problems to evaluate on; no problem's text is on both sides.

    ``dropped`` counts rows of the source that were left out because they hold no problem or no answer. ``revision`` is
    the commit of a data set on the hub.
    """

    train: list[Problem]
    held_out: list[Problem]
    dropped: int = 0
    revision: str | None = None
