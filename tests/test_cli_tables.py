"""Tables on a terminal that is narrower than they are."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from aapo_desk.cli.output import LEAST_CELL, table

ROWS = [
    ["one", "a model with a long name of its own", "2026-11-26"],
    ["another", "日本語の模型日本語の模型日本語", "-"],
]


@pytest.fixture
def stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    def be(columns: int, terminal: bool = True) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
        monkeypatch.setenv("COLUMNS", str(columns))

    return be


def lines(shorten: str | None = None) -> list[str]:
    return table(["run", "model", "created"], ROWS, shorten=shorten)


def test_a_row_that_does_not_fit_is_cut_in_the_column_that_may_be(stdout: Callable[..., None]) -> None:
    stdout(42)
    assert lines("model") == [
        "run      model                  created",
        "one      a model with a long…   2026-11-26",
        "another  日本語の模型日本語の…  -",
    ]


def test_no_column_is_cut_until_it_tells_nothing(stdout: Callable[..., None]) -> None:
    stdout(10)
    assert lines("model")[2] == f"another  日本語の模型日…{' ' * (LEAST_CELL - 15)}  -"
    assert lines("created") == lines()  # is short anyway


def test_what_fits_stays_whole_and_in_a_pipe_all_does(stdout: Callable[..., None]) -> None:
    stdout(56)
    whole = lines()
    assert whole[2] == "another  日本語の模型日本語の模型日本語       -"
    assert lines("model") == whole
    stdout(20, terminal=False)
    assert lines("model") == whole
