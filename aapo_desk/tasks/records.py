"""What a task is made of, once it is read, and how it was read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Turn:
    """What somebody said in a conversation. ``role``: system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Problem:
    """One problem with its right answer. ``id`` names it within its task, such as ``3+4`` or ``test-17``.

    ``before``: what was said before it, where it is the last question of a conversation. ``recipe``: how its generator
    makes it again, for the reward that has to ask the generator; a text of the generator's own. ``solution``: the way
    to the answer, as a right completion would have it, for a warm start; empty where there is none.
    """

    id: str
    problem: str
    answer: str
    before: tuple[Turn, ...] = ()
    recipe: str = ""
    solution: str = ""


@dataclass(frozen=True)
class Column:
    """A column and why it was taken; ``others`` are those that a guess might have taken as well."""

    name: str
    how: Literal["named", "default", "guessed"]
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """How a source of rows was understood. The counts are of rows, over all splits that were read."""

    splits: Mapping[str, int]
    """Rows of each split that was read."""
    trained_on: str
    held_out_from: str
    problem: Column
    answer: Column
    solution: Column | None = None
    """None: no worked solutions are read."""
    no_problem: int = 0
    no_answer: int = 0
    long_answer: int = 0
    """Longer than ``task.max_answer_characters``."""
    held_out_too: int = 0
    """Training rows with the text of a held-out problem."""
    repeated: int = 0
    """Training rows with the text of an earlier one; they are kept."""
    no_solution: int = 0
    """Training problems without one, where they are read; they are kept."""
    conversations: int = 0
    """Rows whose problem is a list of messages."""

    def notes(self) -> Iterator[str]:
        """What was decided for the user, a sentence each."""
        for what, column in (("problem", self.problem), ("answer", self.answer)):
            if column.how == "guessed":
                others = f" (there are also {', '.join(column.others)})" if column.others else ""
                yield f"took the column {column.name} for the {what}{others}; another: --set task.{what}_column=NAME"
        if self.conversations:
            yield (
                f"{_rows(self.conversations)} with a conversation: asked up to the last question; what was said after "
                "it is not shown to the model"
            )
        if self.no_problem:
            yield f"{_rows(self.no_problem)} without a problem: left out"
        if self.no_solution:
            yield f"{_rows(self.no_solution)} without a worked solution: kept, but of no use for a warm start"
        if self.no_answer:
            yield f"{_rows(self.no_answer)} without an answer: left out"
        if self.long_answer:
            yield f"{_rows(self.long_answer)} with an answer longer than task.max_answer_characters: left out"
        if self.held_out_too:
            yield f"{_rows(self.held_out_too)} with a problem that is held out: not trained on"
        if self.repeated:
            yield f"{_rows(self.repeated)} with the problem of another row: kept, so it comes more often"


@dataclass(frozen=True)
class TaskData:
    """Problems to train on and problems to evaluate on; no problem's text is on both sides.

    ``dropped`` counts rows of the source that were left out because they hold no problem or no answer, or too long an
    answer. ``reading`` is None for problems that were generated. ``revision`` is the commit of a data set on the hub.
    """

    train: list[Problem]
    held_out: list[Problem]
    dropped: int = 0
    revision: str | None = None
    reading: Reading | None = None

    @property
    def notes(self) -> list[str]:
        """What was decided for the user while reading, a sentence each."""
        return list(self.reading.notes()) if self.reading else []


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"
