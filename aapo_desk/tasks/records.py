"""The data of a loaded task, and how its source was read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Turn:
    """One message of a conversation. ``role``: system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Problem:
    """One problem with its right answer. ``id`` identifies it within its task, such as ``3+4`` or ``test-17``.

    ``before``: the messages before it, if it is the last question of a conversation. ``recipe``: how its generator can
    make it again, in the generator's own format, for a reward that needs the generator. ``solution``: a worked solution
    in the form of a right completion, for a warm start; empty if there is none.
    """

    id: str
    problem: str
    answer: str
    before: tuple[Turn, ...] = ()
    recipe: str = ""
    solution: str = ""


@dataclass(frozen=True)
class Column:
    """A column and why it was chosen. ``others`` are the other columns that a guess could have chosen."""

    name: str
    how: Literal["named", "default", "guessed"]
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """How the rows of a source were interpreted. The counts are numbers of rows over all splits that were read."""

    splits: Mapping[str, int]
    """Rows of each split that was read."""
    trained_on: str
    held_out_from: str
    problem: Column
    answer: Column
    solution: Column | None = None
    """None if no worked solutions are read."""
    no_problem: int = 0
    no_answer: int = 0
    long_answer: int = 0
    """Rows with an answer longer than ``task.max_answer_characters``."""
    held_out_too: int = 0
    """Training rows with the text of a held-out problem."""
    repeated: int = 0
    """Training rows with the text of an earlier one; they are kept."""
    no_solution: int = 0
    """Training problems without a worked solution, if solutions are read; they are kept."""
    conversations: int = 0
    """Rows whose problem is a list of messages."""

    def notes(self) -> Iterator[str]:
        """Yield one sentence for each decision that was made for the user."""
        for what, column in (("problem", self.problem), ("answer", self.answer)):
            if column.how == "guessed":
                others = f" (there are also {', '.join(column.others)})" if column.others else ""
                yield (
                    f"using the column {column.name} as the {what}{others}; to choose another: "
                    f"--set task.{what}_column=NAME"
                )
        if self.conversations:
            yield (
                f"{_rows(self.conversations)} with a conversation: the prompt ends with the last question, and later "
                "messages are not shown to the model"
            )
        if self.no_problem:
            yield f"{_rows(self.no_problem)} without a problem: left out"
        if self.no_solution:
            yield f"{_rows(self.no_solution)} without a worked solution: kept, but not used for a warm start"
        if self.no_answer:
            yield f"{_rows(self.no_answer)} without an answer: left out"
        if self.long_answer:
            yield f"{_rows(self.long_answer)} with an answer longer than task.max_answer_characters: left out"
        if self.held_out_too:
            yield f"{_rows(self.held_out_too)} with the problem of a held-out row: not trained on"
        if self.repeated:
            yield f"{_rows(self.repeated)} with the same problem as another row: kept, so the problem comes more often"


@dataclass(frozen=True)
class TaskData:
    """The problems to train on and those to evaluate on. No problem's text is in both.

    ``dropped`` counts the rows of the source that were left out because they have no problem, no answer, or an answer
    that is too long. ``reading`` is None for generated problems. ``revision`` is the commit of a data set on the hub.
    """

    train: list[Problem]
    held_out: list[Problem]
    dropped: int = 0
    revision: str | None = None
    reading: Reading | None = None

    @property
    def notes(self) -> list[str]:
        """One sentence for each decision that was made for the user while reading."""
        return list(self.reading.notes()) if self.reading else []


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"
