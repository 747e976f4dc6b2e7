"""Which columns are taken for the problem and the answer, and that this is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from aapo_desk import tasks
from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.tasks import TaskData


def load(path: Path, **settings: Any) -> TaskData:
    return tasks.load(TaskConfig(source=f"file:{path}", held_out=0, **settings), 0)


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def taken(data: TaskData) -> tuple[tuple[str, str], tuple[str, str]]:
    assert data.reading
    problem, answer = data.reading.problem, data.reading.answer
    return (problem.name, problem.how), (answer.name, answer.how)


@pytest.mark.parametrize(
    ("row", "problem", "answer"),
    [
        ({"problem": "p", "answer": 1, "question": "no"}, ("problem", "default"), ("answer", "default")),
        ({"question": "p", "answer": 1}, ("question", "guessed"), ("answer", "default")),
        ({"id": 7, "Prompt": "p", "Target": 1}, ("Prompt", "guessed"), ("Target", "guessed")),
        ({"input": "p", "output": 1}, ("input", "guessed"), ("output", "guessed")),
        (
            {"instruction": "p", "input": "x", "Final Answer": 1},
            ("instruction", "guessed"),
            ("Final Answer", "guessed"),
        ),
        ({"problem": "p", "solution": 1, "level": 3}, ("problem", "default"), ("solution", "guessed")),
    ],
)
def test_the_likeliest_columns_are_taken(
    tmp_path: Path, row: dict[str, Any], problem: tuple[str, str], answer: tuple[str, str]
) -> None:
    data = load(write(tmp_path / "a.jsonl", row))
    assert (data.train[0].problem, data.train[0].answer) == ("p", "1")
    assert taken(data) == (problem, answer)


def test_a_guess_is_said_with_what_else_there_is_and_how_to_choose(tmp_path: Path) -> None:
    data = load(write(tmp_path / "a.jsonl", {"query": "p", "prompt": "q", "answer": 1}))
    assert data.notes == [
        "using the column prompt as the problem (there are also query); to choose another: "
        "--set task.problem_column=NAME"
    ]


def test_columns_that_are_named_or_usual_are_not_talked_about(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"problem": "p", "answer": 1, "query": "q"})
    assert load(path).notes == []
    named = load(path, problem_column="query")
    assert (named.train[0].problem, named.notes) == ("q", [])


def test_a_column_that_is_named_is_never_replaced_by_a_guess(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"question": "p", "answer": 1})
    with pytest.raises(ConfigError, match=r"no column problem; it has the columns question, answer"):
        load(path, problem_column="problem")


def test_where_nothing_looks_like_it_the_columns_there_are_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"problme": "p", "wert": 1})
    with pytest.raises(ConfigError) as caught:
        load(path)
    problem, answer = str(caught.value).splitlines()
    assert problem.startswith(
        f"task.problem_column: file:{path} has no column problem and none with a similar name; it has the columns "
        "problme, "
    )
    assert problem.endswith("name one: --set task.problem_column=NAME; did you mean problme?")
    assert answer.endswith("it has the columns problme, wert; name one: --set task.answer_column=NAME")


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_value_inside_a_column_is_named_with_a_dot(tmp_path: Path, suffix: str) -> None:
    rows: list[dict[str, Any]] = [
        {"extra": {"q": {"text": f"p{n}"}}, "reward_model": {"ground_truth": str(n), "style": "rule"}} for n in (1, 2)
    ]
    path = tmp_path / f"a.{suffix}"
    write(path, *rows) if suffix == "jsonl" else write_parquet(path, rows)
    data = load(path, problem_column="extra.q.text")
    assert [(problem.problem, problem.answer) for problem in data.train] == [("p1", "1"), ("p2", "2")]
    assert taken(data)[1] == ("reward_model.ground_truth", "guessed")
    with pytest.raises(ConfigError, match=r"no column exta\.q\.text; .*did you mean extra\.q\.text\?"):
        load(path, problem_column="exta.q.text")


def test_a_column_with_a_dot_in_its_name_is_that_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("q.text,answer\np,1\n")
    assert load(tmp_path / "a.csv", problem_column="q.text").train[0].problem == "p"


def test_the_rows_of_each_kind_are_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        *({"problem": f"p{n}", "answer": n} for n in range(5)),
        {"problem": "p3 ", "answer": 3},
        {"problem": "", "answer": 1},
        {"problem": "q", "answer": None},
        {"problem": "r"},
    ]
    path = write(tmp_path / "a.jsonl", *rows)
    reading = tasks.load(TaskConfig(source=f"file:{path}", held_out=1), 3).reading
    assert reading
    assert (reading.splits, reading.trained_on, reading.held_out_from) == ({"train": 9}, "train", "train")
    assert (reading.no_problem, reading.no_answer) == (1, 2)
    assert (reading.held_out_too, reading.repeated) in ((1, 0), (0, 1))  # whether p3 is held out is the seed's


def test_a_file_without_any_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    with pytest.raises(
        ConfigError, match="has no column problem and none with a similar name; it has no columns; name one"
    ):
        load(tmp_path / "a.jsonl")
