"""Read the rows of a JSON, JSON Lines, CSV or Parquet file unchanged, or of a folder with one such file per split.

These files are not read through ``datasets``, because it guesses a type for each column: the answer 007 becomes 7, NA
becomes a missing value, 2024-01-01 becomes a timestamp. It also keeps copies of what it has read.
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
"""Maximum length of a CSV field, in characters. Python's default, 131 072, is too low for some documents."""
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
# Names that the file of a split may have, without the suffix.
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}

Wanted = Callable[[list[str]], Collection[str]]
"""A function that takes the columns of a file and returns those to read."""


def read_file(path: Path, wanted: Wanted) -> Table:
    """Read the rows of a .jsonl, .json, .csv or .parquet file, with at least the ``wanted`` columns.

    Raises ConfigError that names the file and, if known, the line.
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
    """Return the file of each split, if a folder has one file per split: ``train.jsonl``, ``test.csv``.

    Returns None for any other layout, which ``datasets`` then reads like a data set on the hub. A folder with a
    README.md or with subfolders counts as such, because its card may describe the splits.
    """
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    data = [entry for entry in entries if entry.suffix.lower() in suffixes]
    found = {name: entry for entry in data if (name := SPLITS.get(entry.stem.lower()))}
    described = any(entry.is_dir() or entry.name == "README.md" for entry in entries)
    return None if described or not data or len(found) < len(data) else found


def read_splits(config: TaskConfig, files: Mapping[str, Path]) -> dict[str, Table]:
    """Read the split to train on and those to evaluate on. Raises ConfigError as ``read_file`` does."""
    train = training_split(config, list(files))
    names = (train, *evaluation_splits(train, list(files)))
    return {name: read_file(files[name], partial(needed, config)) for name in names}


def _decode(path: Path, data: bytes) -> str:
    """Decode UTF-8 text with or without a byte order mark. Raises ConfigError that names the line of invalid bytes."""
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
        raise _refusal(path, f"cannot be read as Parquet: {error}") from error


def _json_rows(path: Path, text: str) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the rows and their line numbers.

    The text is a JSON list of objects or one object per line; a file of either suffix may contain either form.
    """
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
        whole = json.loads(text)  # a single object, which may span several lines
    except (ValueError, RecursionError):
        filled = {number: line for number, line in enumerate(text.split("\n"), 1) if line.strip()}
        return [_json_row(path, number, line) for number, line in filled.items()], list(filled)
    if not isinstance(whole, dict):
        raise _refusal(path, "must be a list of objects, or one object per line")
    (name, value), *others = whole.items() or [("", None)]
    if not others and isinstance(value, list) and value and all(_is_row(item) for item in value):
        raise _refusal(path, f"has its rows inside {name}; the file must contain only that list")
    before = text[: len(text) - len(text.lstrip())]
    return [whole], [before.count("\n") + 1]


def _is_row(value: Any) -> bool:
    """Return whether the value looks like a row and not like a message of a conversation."""
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
    """Read one row per record, with the column names of the header.

    A record with more fields than the header is refused: an unquoted comma shifts the fields after it, and the answer
    would be a piece of the problem.
    """
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
                    f"line {begins} has {len(record)} fields, but the header has {len(header)}; "
                    f"put quotes around text that contains {DELIMITERS[delimiter]}"
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
    """Return the delimiter: a comma, or if the header has none, the semicolon or tab that some spreadsheets write."""
    header = text.lstrip("\n\r").partition("\n")[0]
    return next((mark for mark in DELIMITERS if mark in header), ",")


def _refusal(path: Path, message: str) -> ConfigError:
    return ConfigError(Refusal("task.source", f"{path} {message}"))
