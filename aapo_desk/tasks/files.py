"""Rows of a JSON, JSON Lines, CSV or Parquet file, as they are written.

These are read here and not through ``datasets``, which guesses a type for each column: the answer 007 becomes 7, NA
becomes nothing, 2024-01-01 becomes a point in time. It also keeps copies of what it read.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from aapo_desk.config import ConfigError
from aapo_desk.config import Problem as Refusal
from aapo_desk.tasks.tables import Table


def read_file(path: Path, wanted: Collection[str]) -> Table:
    """The rows of a .jsonl, .json, .csv or .parquet file, with at least the ``wanted`` columns where it has them.

    Raises ConfigError naming the file and, where known, the line.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return _parquet_table(path, wanted)
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _refusal(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise _refusal(path, f"is not UTF-8 text (byte {error.start})") from error
    if path.suffix.lower() == ".csv":
        return _csv_table(path, text)
    rows = _json_rows(path, text)
    return Table(list(dict.fromkeys(name for row in rows for name in row)), rows)


def _parquet_table(path: Path, wanted: Collection[str]) -> Table:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            return Table(columns, file.read([name for name in columns if name in wanted]).to_pylist())
    except ArrowException as error:
        raise _refusal(path, f"is not a Parquet file that can be read: {error}") from error


def _json_rows(path: Path, text: str) -> list[dict[str, Any]]:
    """The objects of a list, or one object a line; either may stand in a file of either suffix."""
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _refusal(path, f"is not valid JSON: {error}") from None
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                raise _refusal(path, f"must be a list of objects; item {number} is none")
        return list(rows)
    try:
        whole = json.loads(text)  # one object, over however many lines
    except (ValueError, RecursionError):
        return [_json_row(path, n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not isinstance(whole, dict):
        raise _refusal(path, "must be a list of objects, or an object a line")
    return [whole]


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
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        rows = []
        for record in reader:
            if len(record) > len(header):
                message = (
                    f"line {reader.line_num} has {len(record)} fields and the header {len(header)}; "
                    "put quotes around text that holds a comma"
                )
                raise _refusal(path, message)
            if record:
                rows.append(dict(zip(header, record, strict=False)))
    except csv.Error as error:
        raise _refusal(path, f"line {reader.line_num} is not valid CSV: {error}") from None
    return Table(header, rows)


def _refusal(path: Path, message: str) -> ConfigError:
    return ConfigError(Refusal("task.source", f"{path} {message}"))
