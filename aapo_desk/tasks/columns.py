"""Choose the columns of the problem and the answer: the named ones, else the usual ones, else a reported guess."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.config import Problem as Refusal
from aapo_desk.tasks.records import Column

# The names that data sets use, the most likely first. The first name counts as the default, the others as guesses.
PROBLEM_NAMES = (
    "problem", "question", "prompt", "query", "instruction", "input", "problem_statement", "question_text",
    "messages", "conversations", "conversation",
)  # fmt: skip
ANSWER_NAMES = (
    "answer", "final_answer", "expected_answer", "correct_answer", "ground_truth", "reward_model.ground_truth",
    "answers", "gold", "target", "label", "solution", "output", "response", "completion",
    "messages", "conversations", "conversation",
)  # fmt: skip
SHOWN_COLUMNS = 20


def needed(config: TaskConfig, columns: Sequence[str]) -> list[str]:
    """Return the columns of a source that must be read: those that ``found`` chooses, as far as they exist."""
    taken = [_take(name, names, columns) for name, names in _wanted(config).values()]
    heads = [_head(column.name, columns) for column in taken if column]
    return list(dict.fromkeys(head for head in heads if head is not None))


def found(config: TaskConfig, columns: Sequence[str], where: str) -> list[Column]:
    """Return the columns of the problem, of the answer and, if one is named, of the worked solution.

    Raises ConfigError that names ``where``, the existing columns and the most similar one.
    """
    taken, refused = [], []
    for path, (name, names) in _wanted(config).items():
        column = _take(name, names, columns)
        if column is None:
            refused.append(_missing(path, name, names, columns, where))
        elif list(columns).count(head := _head(column.name, columns) or column.name) > 1:
            refused.append(Refusal(path, f"{where} has several columns named {head}; rename them"))
        else:
            taken.append(column)
    if refused:
        raise ConfigError(*refused)
    return taken


def value(row: Mapping[str, Any], name: str) -> Any:
    """Return a value of a row. If there is no column ``a.b``, this name means the key b inside the column a."""
    if name in row or "." not in name:
        return row.get(name)
    inside: Any = row
    while name and isinstance(inside, Mapping):
        if name in inside:
            return inside[name]
        head, _, name = name.partition(".")
        inside = inside.get(head)
    return None


def has(columns: Sequence[str], name: str) -> bool:
    """Return whether a table with these columns may contain a value under this name."""
    return _head(name, columns) is not None


def _wanted(config: TaskConfig) -> dict[str, tuple[str | None, tuple[str, ...]]]:
    """Return, for each setting, the column that it names and the names to guess from."""
    wanted: dict[str, tuple[str | None, tuple[str, ...]]] = {
        "task.problem_column": (config.problem_column, PROBLEM_NAMES),
        "task.answer_column": (config.answer_column, ANSWER_NAMES),
    }
    if config.solution_column is not None:
        wanted["task.solution_column"] = (config.solution_column, ())
    return wanted


def _take(name: str | None, names: Sequence[str], columns: Sequence[str]) -> Column | None:
    if name is not None:
        return Column(name, "named") if has(columns, name) else None
    written = {_plain(column): column for column in reversed(columns)}
    likely = []
    for candidate in names:
        head, dot, rest = candidate.partition(".")
        if head in written:
            likely.append(f"{written[head]}{dot}{rest}")
    if not likely:
        return None
    return Column(likely[0], "default" if likely[0] == names[0] else "guessed", tuple(likely[1:]))


def _plain(name: str) -> str:
    """Normalize case, spaces and hyphens of a name: ``Final Answer`` becomes ``final_answer``."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _head(name: str, columns: Sequence[str]) -> str | None:
    """Return the column that contains ``name``: the column of this name, or the one that the value is nested in."""
    while name not in columns:
        name, dot, _ = name.rpartition(".")
        if not dot:
            return None
    return name


def _missing(path: str, name: str | None, names: Sequence[str], columns: Sequence[str], where: str) -> Refusal:
    more = f" and {len(columns) - SHOWN_COLUMNS} more" if len(columns) > SHOWN_COLUMNS else ""
    there = f"it has the columns {', '.join(columns[:SHOWN_COLUMNS])}{more}" if columns else "it has no columns"
    if name is not None:
        close = difflib.get_close_matches(name, columns, n=1) or _heads_like(name, columns)
        return Refusal(path, f"{where} has no column {name}; {there}", nearest=close[0] if close else None)
    close = [column for column in columns if difflib.get_close_matches(_plain(column), names, n=1, cutoff=0.7)]
    message = f"{where} has no column {names[0]} and none with a similar name; {there}; name one: --set {path}=NAME"
    return Refusal(path, message, nearest=close[0] if close else None)


def _heads_like(name: str, columns: Sequence[str]) -> list[str]:
    """Return nested names whose column is similar: ``reward_model.ground_truth`` for ``rewardmodel.ground_truth``."""
    head, dot, rest = name.partition(".")
    close = difflib.get_close_matches(head, columns, n=1) if dot else []
    return [f"{column}.{rest}" for column in close]
