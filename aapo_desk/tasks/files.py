"""Rows of a JSON, JSON Lines, CSV or Parquet file, as they are written, and of a folder with such a file a split.

These are read here and not through ``datasets``, which guesses a type for each column: the answer 007 becomes 7, NA
becomes nothing, 2024-01-01 becomes a point in time. It also keeps copies of what it read.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.config import Problem as Refusal
from aapo_desk.tasks.columns import needed
from aapo_desk.tasks.tables import Table, evaluation_splits, training_split

LONGEST_FIELD = 1 << 31
"""Characters of a CSV field. Python's own limit is 131 072, less than some documents have."""
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
# What a split's file may be called.
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}

Wanted = Callable[[list[str]], Collection[str]]
"""Of a file's columns, those that are to be read."""


def read_file(path: Path, wanted: Wanted) -> Table:
    """The rows of a .jsonl, .json, .csv or .parquet file, with at least the ``wanted`` of its columns.

    Raises ConfigError naming the file and, where known, the line.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return _parquet_table(path, wanted)
        text = _decode(path, path.read_bytes())
    except OSError as error:
        raise _refusal(path, f"cannot be read: {error.strerror or error}") from error
    if path.suffix.lower() == ".csv":
        return _csv_table(path, text)
    rows, lines = _json_rows(path, text)
    return Table(list(dict.fromkeys(name for row in rows for name in row)), rows, lines)


def split_files(folder: Path, suffixes: Collection[str]) -> dict[str, Path] | None:
    """The file of each split where a folder holds one of the ``suffixes`` a split: ``train.jsonl``, ``test.csv``.

    None for any other layout, which is the hub's; a folder whose card may describe it is the hub's too.
    """
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    data = [entry for entry in entries if entry.suffix.lower() in suffixes]
    found = {name: entry for entry in data if (name := SPLITS.get(entry.stem.lower()))}
    described = any(entry.is_dir() or entry.name == "README.md" for entry in entries)
    return None if described or not data or len(found) < len(data) else found


def read_splits(config: TaskConfig, files: Mapping[str, Path]) -> dict[str, Table]:
    """The split to train on and those to evaluate on. Raises ConfigError as ``read_file`` does."""
    train = training_split(config, list(files))
    names = (train, *evaluation_splits(train, list(files)))
    return {name: read_file(files[name], partial(needed, config)) for name in names}


def _decode(path: Path, data: bytes) -> str:
    """UTF-8 text, with or without a byte order mark. Raises ConfigError naming the line of what is none."""
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise _refusal(path, "is UTF-16 text; save it as UTF-8") from None
        line = data.count(b"\n", 0, error.start) + 1
        raise _refusal(path, f"line {line} is not UTF-8 text (byte {error.start}); save the file as UTF-8") from None


def _parquet_table(path: Path, wanted: Wanted) -> Table:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            names = wanted(columns)
            return Table(columns, file.read([name for name in columns if name in names]).to_pylist())
    except ArrowException as error:
        raise _refusal(path, f"is not a Parquet file that can be read: {error}") from error


def _json_rows(path: Path, text: str) -> tuple[list[dict[str, Any]], list[int]]:
    """The objects of a list, or one object a line, and their lines; either may stand in a file of either suffix."""
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _refusal(path, f"is not valid JSON: {error}") from None
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                raise _refusal(path, f"must be a list of objects; item {number} is not one")
        return list(rows), []
    try:
        whole = json.loads(text)  # one object, over however many lines
    except (ValueError, RecursionError):
        filled = {number: line for number, line in enumerate(text.split("\n"), 1) if line.strip()}
        return [_json_row(path, number, line) for number, line in filled.items()], list(filled)
    if not isinstance(whole, dict):
        raise _refusal(path, "must be a list of objects, or an object a line")
    (name, value), *others = whole.items() or [("", None)]
    if not others and isinstance(value, list) and value and all(_is_row(item) for item in value):
        raise _refusal(path, f"holds its rows inside {name}; keep that list alone in the file")
    before = text[: len(text) - len(text.lstrip())]
    return [whole], [before.count("\n") + 1]


def _is_row(value: Any) -> bool:
    """True for what looks like a row and not like a message of a conversation."""
    return isinstance(value, dict) and not {"role", "from"} & value.keys()


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise _refusal(path, f"line {number} is not valid JSON: {reason}") from None
    if not isinstance(row, dict):
        raise _refusal(path, f'line {number} must be an object such as {{"problem": ..., "answer": ...}}')
    return row


def _csv_table(path: Path, text: str) -> Table:
    """One row a record, named by the header. A record longer than the header is refused: an unquoted comma shifts
    what follows, and the answer would be a piece of the problem."""
    csv.field_size_limit(LONGEST_FIELD)
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[dict[str, str]] = []
    lines: list[int] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        begins = reader.line_num + 1
        for record in reader:
            if len(record) > len(header):
                message = (
                    f"line {begins} has {len(record)} fields and the header {len(header)}; "
                    f"put quotes around text that holds {DELIMITERS[delimiter]}"
                )
                raise _refusal(path, message)
            if record:
                rows.append(dict(zip(header, record, strict=False)))
                lines.append(begins)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise _refusal(path, f"line {reader.line_num} is not valid CSV: {error}") from None
    return Table(header, rows, lines)


def _delimiter(text: str) -> str:
    """A comma; where the header has none, the semicolon or tab that it has instead, as some spreadsheets write."""
    header = text.lstrip("\n\r").partition("\n")[0]
    return next((mark for mark in DELIMITERS if mark in header), ",")


def _refusal(path: Path, message: str) -> ConfigError:
    return ConfigError(Refusal("task.source", f"{path} {message}"))
