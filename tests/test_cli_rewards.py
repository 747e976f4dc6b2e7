"""``rewards try``: completions out of a file, scored by the real pool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.cli.app import run

Output = pytest.CaptureFixture[str]

ROWS: list[dict[str, Any]] = [
    {"completion": "The answer is 7.", "answer": 7, "tokens": 5, "truncated": False},
    {"completion": "<think>3 + 4", "answer": 7, "tokens": 20, "truncated": True},
    {"completion": "It is 8.", "answer": 7, "tokens": 4, "truncated": False},
    {"completion": "7", "answer": "blue", "tokens": 1, "truncated": False},
]


FILES = {
    "done.jsonl": "\n".join(map(json.dumps, ROWS)),
    "done.csv": 'output,gold\n"It is 7.",7\n"1,000",1000\n',
    "empty.jsonl": "",
    "broken.jsonl": '{"completion": "a", "answer": "b"}\n{"completion": \n',
    "chat.jsonl": '{"completion": [{"role": "assistant"}], "answer": "7"}',
    "nested.jsonl": '{"completion": "7", "answer": {"value": 7}}',
    "counts.jsonl": '{"completion": "7", "answer": "7", "tokens": "many"}',
    "cut.jsonl": '{"completion": "7", "answer": "7", "truncated": "perhaps"}',
    "notes.txt": "7",
    "mine.py": "import os\ndef half(completion, answer): return 0.5\ndef dies(completion, answer): os._exit(3)\n",
}


@pytest.fixture(autouse=True)
def files(desk_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)


def tried(capsys: Output, *arguments: str) -> dict[str, Any]:
    assert run(["rewards", "try", *arguments, "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_file_is_scored_as_a_run_would_score_it(capsys: Output) -> None:
    format_reward = '{name: format, weight: 0.5, options: {pattern: "<think>"}}'
    document = tried(capsys, "done.jsonl", "--reward", "numeric", "--reward", format_reward, "--reward", "mine.py:half")
    parts = [score["parts"] for score in document["scores"]]
    assert [part["format"] for part in parts] == [0.0, 1.0, 0.0, 0.0]
    assert [part["numeric"] for part in parts] == [1.0, 0.0, 0.0, None]
    assert [score["total"] for score in document["scores"]] == [1.5, 1.0, 0.5, None]
    assert document["scores"][3]["error"].startswith("numeric: raised ValueError: the right answer is not a number")
    numeric, form, half = document["rewards"]
    assert (numeric["mean"], numeric["unscored"], numeric["weight"]) == (pytest.approx(1 / 3), 1, 1.0)
    assert (form["name"], form["weight"], form["options"]) == ("format", 0.5, {"pattern": "<think>"})
    assert (half["name"], half["least"], half["most"]) == ("half", 0.5, 0.5)
    assert document["total"] == {"mean": 1.0, "least": 0.5, "most": 1.5, "unscored": 1}
    assert document["seconds"] > 0


def test_lengths_come_from_the_file_or_are_words(capsys: Output) -> None:
    document = tried(capsys, "done.jsonl", "--reward", "length")
    assert (document["tokens_are"], document["max_tokens"]) == ("tokens", 20)
    assert [score["total"] for score in document["scores"]] == pytest.approx([0.75, 0.0, 0.8, 0.95])
    columns = ("--completion-column", "output", "--answer-column", "gold")
    document = tried(capsys, "done.csv", *columns, "--reward", "length", "--max-tokens", "12")
    assert document["tokens_are"] == "words"
    assert [score["total"] for score in document["scores"]] == pytest.approx([0.75, 11 / 12])


def test_plain_lines_say_what_was_scored_what_not_and_how_long_it_took(capsys: Output) -> None:
    assert run(["rewards", "try", "done.jsonl", "--reward", "numeric", "--reward", "{name: tags, weight: 2}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 completions of up to 20 tokens"
    assert lines[1].split() == ["reward", "weight", "mean", "min", "max", "unscored"]
    assert lines[2].split() == ["numeric", "1.000", "0.333", "0.000", "1.000", "1"]
    assert lines[3].split() == ["tags", "2.000", "0.062", "0.000", "0.250", "0"]
    assert lines[4].split() == ["weighted", "sum", "0.500", "0.000", "1.000", "1"]
    assert lines[5].startswith("row 4: numeric: raised ValueError: the right answer is not a number: 'blue'")
    assert lines[6].startswith("scored in ")
    assert "ms each, by 2 workers" in lines[6]


def test_a_reward_that_ends_its_worker_leaves_a_row_unscored(capsys: Output) -> None:
    document = tried(capsys, "nested.jsonl", "--answer-column", "completion", "--reward", "mine.py:dies")
    assert document["total"]["unscored"] == 1
    assert "dies" in document["scores"][0]["error"]


MATH = ("--reward", "math")
REFUSED: dict[str, tuple[list[str], str]] = {
    "no reward": (["done.jsonl"], "--reward: is missing: give at least one"),
    "an unknown reward": (["done.jsonl", "--reward", "maths"], "rewards.0.name = 'maths': there is no such reward"),
    "an option that does not fit": (
        ["done.jsonl", *MATH, "--reward", "{name: numeric, options: {relative: -1}}"],
        "rewards.1.options.relative = -1: must be a number, 0 or more",
    ),
    "an option that is missing": (["done.jsonl", "--reward", "format"], "rewards.0.options.pattern: is missing"),
    "a mapping that is none": (["done.jsonl", "--reward", "{name: math"], "--reward = '{name: math': is not a YAML"),
    "a mapping without a name": (
        ["done.jsonl", "--reward", "{weight: 2}"],
        "rewards.0.name (from --reward): is missing",
    ),
    "an unknown key in it": (["done.jsonl", "--reward", "{name: math, wieght: 2}"], "did you mean rewards.0.weight?"),
    "a function that is not there": (["done.jsonl", "--reward", "mine.py:whole"], "mine.py has no function whole"),
    "a file that is not there": (["gone.jsonl", *MATH], "gone.jsonl cannot be read: No such file"),
    "a folder": ([".", *MATH], "FILE = '.': must end in .jsonl, .json, .csv, .parquet"),
    "another kind of file": (["notes.txt", *MATH], "FILE = 'notes.txt': must end in"),
    "an empty file": (["empty.jsonl", *MATH], "empty.jsonl has no rows"),
    "a broken line": (["broken.jsonl", *MATH], "broken.jsonl line 2 is not valid JSON"),
    "no such completion column": (
        ["done.csv", *MATH, "--answer-column", "gold"],
        "--completion-column: done.csv has no column completion; it has output, gold",
    ),
    "no such answer column": (
        ["done.jsonl", *MATH, "--answer-column", "anser"],
        "--answer-column: done.jsonl has no column anser; it has completion, answer, tokens, truncated; did you mean",
    ),
    "completions that are chats": (["chat.jsonl", *MATH], "row 1, column completion: must be text, not [{'role'"),
    "answers that are nested": (["nested.jsonl", *MATH], "--answer-column: row 1 has nested values in this column"),
    "tokens that are no number": (["counts.jsonl", *MATH], "row 1, column tokens: must be a whole number, not 'many'"),
    "truncated that is no truth": (["cut.jsonl", *MATH], "row 1, column truncated: must be true or false"),
    "a longest of nothing": (["done.jsonl", *MATH, "--max-tokens", "0"], "--max-tokens"),
}


@pytest.mark.parametrize(("arguments", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_use_is_refused_in_one_line(arguments: list[str], said: str, capsys: Output) -> None:
    assert run(["rewards", "try", *arguments, "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert len(captured.err.splitlines()) == 1


def test_without_a_file_the_use_is_told(capsys: Output) -> None:
    assert run(["rewards", "try"]) == 2
    assert "FILE" in capsys.readouterr().err
    assert run(["rewards", "try", "--help"]) == 0
    assert "Usage: aapo-desk rewards try" in capsys.readouterr().out
