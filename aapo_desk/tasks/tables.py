"""From the rows of a data set to problems: columns, answers as text, and the held-out part."""

from __future__ import annotations

import difflib
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.config import Problem as Refusal
from aapo_desk.tasks.records import Problem, TaskData

# A source's own splits to evaluate on, the best first.
EVALUATION_SPLITS = ("test", "validation")


@dataclass(frozen=True)
class Table:
    """One split: the names of its columns and its rows, which hold at least the columns the task names."""

    columns: list[str]
    rows: Sequence[Mapping[str, Any]]


def training_split(config: TaskConfig, names: Sequence[str]) -> str:
    """The split to train on. Raises ConfigError, with the splits there are, where it is not one of ``names``."""
    wanted = config.split or "train"
    if wanted in names:
        return wanted
    close = difflib.get_close_matches(wanted, names, n=1) or (list(names) if len(names) == 1 else [])
    message = f"{config.source} has no split {wanted}; it has {', '.join(names) or 'none'}"
    raise ConfigError(Refusal("task.split", message, config.split, nearest=close[0] if close else None))


def evaluation_splits(train: str, names: Sequence[str]) -> list[str]:
    """The source's own splits that may be evaluated on when ``train`` is trained on."""
    return [name for name in EVALUATION_SPLITS if name in names and name != train]


def task_data(config: TaskConfig, tables: Mapping[str, Table], seed: int) -> TaskData:
    """The task made of a source's splits: the one to train on and, where there are any, those to evaluate on.

    Held out are ``config.held_out`` problems of the source's own test (else validation) split, else of the training
    split, taken by ``seed``; problems with the text of a held-out one are not trained on. A split of its own that
    cannot be used (no such columns, no answers) is passed over. Raises ConfigError for columns that are missing, for
    a source without problems and for one with too few to hold out.
    """
    train_name = training_split(config, list(tables))
    train, dropped = _problems(config, train_name, tables[train_name])
    rng = random.Random(f"held out {seed}")
    for name in evaluation_splits(train_name, list(tables)):
        if not {config.problem_column, config.answer_column} <= set(tables[name].columns):
            continue
        own, dropped_own = _read(config, name, tables[name])
        if own:
            unique = list({_text_key(problem): problem for problem in own}.values())
            held_out = rng.sample(unique, min(config.held_out, len(unique)))
            rest = _without(train, held_out)
            if not rest:
                message = f"every problem of the split {train_name} is held out from {name} too; lower it"
                raise ConfigError(Refusal("task.held_out", message, config.held_out))
            return TaskData(rest, held_out, dropped + dropped_own)
    unique = list({_text_key(problem): problem for problem in train}.values())
    if config.held_out >= len(unique):
        message = (
            f"{config.source} has {len(unique)} different problems and no test split of its own, and some must be left "
            f"to train on; hold out {len(unique) - 1} at the most"
        )
        raise ConfigError(Refusal("task.held_out", message, config.held_out))
    held_out = rng.sample(unique, config.held_out)
    return TaskData(_without(train, held_out), held_out, dropped)


def answer_text(value: Any) -> str:
    """An answer as text: 42.0 as ``42``, several answers joined by commas, GSM8K's ``...#### 1,000`` as ``1000``.

    Nothing (none, not a number) is the empty text. Raises TypeError for what is no text, number or list of them.
    """
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(answer_text, value)))
    text = _plain_text(value)
    if "####" in text:
        text = re.sub(r"(?<=\d),(?=\d)", "", text.rpartition("####")[2].strip())
    return text


def _plain_text(value: Any) -> str:
    if value is None or (isinstance(value, float | Decimal) and not math.isfinite(value)):
        return ""
    if isinstance(value, float | Decimal) and value == int(value):
        return str(int(value))
    if isinstance(value, Mapping | bytes | list | tuple):
        raise TypeError(f"holds {'bytes' if isinstance(value, bytes) else 'nested values'} there")
    # Half of a surrogate pair can stand in JSON, but in no UTF-8 that comes after.
    return str(value).encode(errors="replace").decode().strip()


def _problems(config: TaskConfig, name: str, table: Table) -> tuple[list[Problem], int]:
    """The split's problems and the number of rows left out. Raises ConfigError where there are no problems."""
    where = config.source if name == "train" else f"{config.source}, split {name},"
    wanted = {"task.problem_column": config.problem_column, "task.answer_column": config.answer_column}
    missing = {path: column for path, column in wanted.items() if table.columns and column not in table.columns}
    if missing:
        raise ConfigError(*(_no_column(path, column, where, table.columns) for path, column in missing.items()))
    if not table.rows:
        raise ConfigError(Refusal("task.source", f"{where} is empty: it has no rows"))
    problems, dropped = _read(config, name, table)
    if not problems:
        message = (
            f"none of the {dropped} rows of {where} holds both a problem ({config.problem_column}) "
            f"and an answer ({config.answer_column})"
        )
        raise ConfigError(Refusal("task.source", message))
    return problems, dropped


def _no_column(path: str, column: str, where: str, columns: list[str], limit: int = 20) -> Refusal:
    more = f" and {len(columns) - limit} more" if len(columns) > limit else ""
    close = difflib.get_close_matches(column, columns, n=1)
    message = f"{where} has no column {column}; it has {', '.join(columns[:limit])}{more}"
    return Refusal(path, message, nearest=close[0] if close else None)


def _read(config: TaskConfig, name: str, table: Table) -> tuple[list[Problem], int]:
    """The rows that hold a problem and an answer, and the number of those that do not."""
    problems: list[Problem] = []
    for number, row in enumerate(table.rows):
        try:
            path, column = "task.problem_column", config.problem_column
            problem = _plain_text(row.get(column))
            path, column = "task.answer_column", config.answer_column
            answer = answer_text(row.get(column))
        except TypeError as error:
            message = f"row {number + 1} of {config.source} {error}; name a column of text or numbers"
            raise ConfigError(Refusal(path, message, column)) from None
        if problem and answer:
            problems.append(Problem(f"{name}-{number}", problem, answer))
    return problems, len(table.rows) - len(problems)


def _without(train: list[Problem], held_out: list[Problem]) -> list[Problem]:
    texts = {_text_key(problem) for problem in held_out}
    return [problem for problem in train if _text_key(problem) not in texts]


def _text_key(problem: Problem) -> str:
    """What makes two problems the same: their words, whatever the spaces between."""
    return " ".join(problem.problem.split())
