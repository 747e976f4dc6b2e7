"""Turn the splits of a source into problems: choose the held-out part, and count the rows that are left out and why."""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.config import Problem as Refusal
from aapo_desk.tasks import columns
from aapo_desk.tasks.records import Column, Problem, Reading, TaskData
from aapo_desk.tasks.texts import answer_text, is_conversation, problem_text, solution_text

# The names of the splits to evaluate on, in order of preference.
EVALUATION_SPLITS = ("test", "validation")

Text = TypeVar("Text")


@dataclass(frozen=True)
class Table:
    """One split: the names of its columns, and its rows with at least the columns that the task needs.

    ``lines``: the line number of each row in its file; empty if the format has no lines.
    """

    columns: list[str]
    rows: Sequence[Mapping[str, Any]]
    lines: Sequence[int] = ()

    def place(self, row: int) -> str:
        """Return the location of a row, such as ``line 3`` or ``row 2``."""
        return f"line {self.lines[row]}" if self.lines else f"row {row + 1}"


@dataclass
class _Read:
    """The problems of a split, and how many rows were left out and why."""

    problems: list[Problem] = field(default_factory=list)
    no_problem: int = 0
    no_answer: int = 0
    long_answer: int = 0
    shortest_answer: int = 0
    conversations: int = 0


def training_split(config: TaskConfig, names: Sequence[str]) -> str:
    """Return the split to train on. Raises ConfigError that lists the splits if it is not one of ``names``."""
    wanted = config.split or "train"
    if wanted in names:
        return wanted
    close = difflib.get_close_matches(wanted, names, n=1) or (list(names) if len(names) == 1 else [])
    message = f"{config.source} has no split {wanted}; its splits: {', '.join(names) or 'none'}"
    raise ConfigError(Refusal("task.split", message, config.split, nearest=close[0] if close else None))


def evaluation_splits(train: str, names: Sequence[str]) -> list[str]:
    """Return the source's own splits that can be used for evaluation if ``train`` is the training split."""
    return [name for name in EVALUATION_SPLITS if name in names and name != train]


def task_data(config: TaskConfig, tables: Mapping[str, Table], seed: int) -> TaskData:
    """Build the task from the splits of a source: the training split and, if there are any, those to evaluate on.

    ``config.held_out`` problems are drawn by ``seed`` from the source's own test split, else from its validation split,
    else from the training split. Problems with the text of a held-out problem are not trained on. A test or validation
    split that cannot be used (missing columns, no answers) is skipped. Raises ConfigError for missing columns, for a
    source without problems and for one with too few problems for the held-out part.
    """
    name = training_split(config, list(tables))
    where = config.source if name == "train" else f"{config.source}, split {name},"
    if not tables[name].rows and not tables[name].columns:
        raise ConfigError(Refusal("task.source", f"{where} is empty: it has no rows"))
    taken = columns.found(config, tables[name].columns, where)
    read = _problems(config, name, tables[name], taken, where)
    own_name, own = _own_evaluation(config, tables, name, taken[:2])
    if own is None:
        train, held_out = hold_out(config, read.problems, seed)
    else:
        held_out = _sample(own.problems, config.held_out, seed)
        train = _without(read.problems, held_out)
        if not train:
            message = f"every problem of the split {name} is also among those held out from {own_name}; lower this"
            raise ConfigError(Refusal("task.held_out", message, config.held_out))
    reads = [read] if own is None else [read, own]
    reading = Reading(
        splits={split: len(table.rows) for split, table in tables.items()},
        trained_on=name,
        held_out_from=own_name or name,
        problem=taken[0],
        answer=taken[1],
        solution=taken[2] if len(taken) > 2 else None,
        no_problem=sum(one.no_problem for one in reads),
        no_answer=sum(one.no_answer for one in reads),
        long_answer=sum(one.long_answer for one in reads),
        held_out_too=len(read.problems) - len(train) - (len(held_out) if own is None else 0),
        repeated=len(train) - len(_unique(train)),
        no_solution=sum(not problem.solution for problem in train) if len(taken) > 2 else 0,
        conversations=sum(one.conversations for one in reads),
    )
    dropped = reading.no_problem + reading.no_answer + reading.long_answer
    return TaskData(train, held_out, dropped, reading=reading)


def hold_out(config: TaskConfig, problems: Sequence[Problem], seed: int) -> tuple[list[Problem], list[Problem]]:
    """Split the problems into those to train on and ``config.held_out`` distinct ones to evaluate on, by ``seed``.

    No text is in both parts. Raises ConfigError if no problem would remain for training.
    """
    different = len(_unique(problems))
    if config.held_out >= different:
        message = (
            f"{config.source} has {different} different problems and no test split, and some must remain for training; "
            f"hold out at most {different - 1}"
        )
        raise ConfigError(Refusal("task.held_out", message, config.held_out))
    held_out = _sample(problems, config.held_out, seed)
    return _without(problems, held_out), held_out


def _own_evaluation(
    config: TaskConfig, tables: Mapping[str, Table], train: str, taken: Sequence[Column]
) -> tuple[str, _Read] | tuple[None, None]:
    """Return the name and the problems of the first usable split to evaluate on, or (None, None)."""
    for name in evaluation_splits(train, list(tables)):
        if all(columns.has(tables[name].columns, column.name) for column in taken):
            read = _read(config, name, tables[name], taken)
            if read.problems:
                return name, read
    return None, None


def _problems(config: TaskConfig, name: str, table: Table, taken: Sequence[Column], where: str) -> _Read:
    """Read the problems of the training split. Raises ConfigError if there are none."""
    if not table.rows:
        raise ConfigError(Refusal("task.source", f"{where} is empty: it has no rows"))
    read = _read(config, name, table, taken)
    if read.problems:
        return read
    if read.long_answer:
        message = (
            f"all {read.long_answer} answers of {where} are longer; the shortest has {read.shortest_answer} characters"
        )
        raise ConfigError(Refusal("task.max_answer_characters", message, config.max_answer_characters))
    problem, answer = (column.name for column in taken[:2])
    message = f"none of the {len(table.rows)} rows of {where} has both a problem ({problem}) and an answer ({answer})"
    raise ConfigError(Refusal("task.source", message))


def _read(config: TaskConfig, name: str, table: Table, taken: Sequence[Column]) -> _Read:
    """Read the rows of a split that have a problem and an answer, and count those that do not.

    ``taken``: the columns of the problem, the answer and, if solutions are read, the worked solution.
    """
    read = _Read()
    longest = config.max_answer_characters
    for number, row in enumerate(table.rows):
        asked = columns.value(row, taken[0].name)
        problem, before = _text(problem_text, asked, config, "problem", taken[0], table.place(number))
        given = columns.value(row, taken[1].name)
        answer = _text(answer_text, given, config, "answer", taken[1], table.place(number))
        if not problem:
            read.no_problem += 1
        elif not answer:
            read.no_answer += 1
        elif longest is not None and len(answer) > longest:
            read.long_answer += 1
            read.shortest_answer = min(read.shortest_answer or len(answer), len(answer))
        else:
            solution = _solution(row, config, taken[2], table.place(number)) if len(taken) > 2 else ""
            read.problems.append(Problem(f"{name}-{number}", problem, answer, before, solution=solution))
            read.conversations += is_conversation(asked)
    return read


def _solution(row: Mapping[str, Any], config: TaskConfig, column: Column, place: str) -> str:
    return _text(solution_text, columns.value(row, column.name), config, "solution", column, place)


def _text(reader: Callable[[Any], Text], value: Any, config: TaskConfig, what: str, column: Column, place: str) -> Text:
    """Return the text that ``reader`` reads from a value. Raises ConfigError that names the row and the column."""
    try:
        return reader(value)
    except TypeError as error:
        advice = "name a column of text or numbers"
        if isinstance(value, Mapping) and value:
            advice = f"name one of its keys, such as {column.name}.{next(iter(value))}"
        message = f"{place} of {config.source} {error}; {advice}"
        raise ConfigError(Refusal(f"task.{what}_column", message, column.name)) from None


def _sample(problems: Sequence[Problem], count: int, seed: int) -> list[Problem]:
    """Return ``count`` distinct problems drawn by a seed, or all of them, shuffled, if there are no more."""
    different = _unique(problems)
    return random.Random(f"held out {seed}").sample(different, min(count, len(different)))


def _unique(problems: Iterable[Problem]) -> list[Problem]:
    """Return one problem per text: the last one."""
    return list({_text_key(problem): problem for problem in problems}.values())


def _without(train: Sequence[Problem], held_out: Iterable[Problem]) -> list[Problem]:
    texts = {_text_key(problem) for problem in held_out}
    return [problem for problem in train if _text_key(problem) not in texts]


def _text_key(problem: Problem) -> tuple[str, ...]:
    """Return the key that makes two problems equal: all their messages, with whitespace normalized."""
    return *(" ".join(turn.content.split()) for turn in problem.before), " ".join(problem.problem.split())
