from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from aapo_desk import tasks
from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.tasks import Problem, TaskData


def load(path: Path, held_out: int = 0, seed: int = 0, **settings: Any) -> TaskData:
    return tasks.load(TaskConfig(source=f"file:{path}", held_out=held_out, **settings), seed)


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, **settings)
    return str(caught.value)


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers(data: TaskData) -> list[str]:
    return [problem.answer for problem in data.train]


def test_json_lines_are_read_with_ids_that_name_the_row(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"problem": "p", "answer": "1"}, {"problem": "q", "answer": "2"}])
    assert load(path).train == [Problem("train-0", "p", "1"), Problem("train-1", "q", "2")]


@pytest.mark.parametrize(
    "text",
    [
        '[{"problem": "p", "answer": 3}]',
        '{"problem": "p", "answer": 3}\n\n',
        '{\n "problem": "p",\n "answer": 3\n}',
        '\ufeff{"problem": "p", "answer": 3}\r\n',
    ],
)
def test_a_json_file_may_hold_a_list_or_an_object_a_line(tmp_path: Path, text: str) -> None:
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert load(tmp_path / name).train == [Problem("train-0", "p", "3")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (42, "42"),
        (42.0, "42"),
        (0.5, "0.5"),
        (-3.0, "-3"),
        ("007", "007"),
        ("2024-01-01", "2024-01-01"),
        (" 12 ", "12"),
        (True, "True"),
        (10**30, str(10**30)),
        (["2"], "2"),
        ([1, "x"], "1, x"),
        ("Half of 48 is 24.\n#### 72", "72"),
        ("so\n#### 1,450,000", "1450000"),
        ("#### (1, 2)", "(1, 2)"),
        ("1,000", "1,000"),
    ],
)
def test_answers_become_text(tmp_path: Path, value: Any, text: str) -> None:
    assert answers(load(write_lines(tmp_path / "a.jsonl", [{"problem": "p", "answer": value}]))) == [text]


def test_answers_of_different_types_may_stand_in_one_column(tmp_path: Path) -> None:
    rows = [{"problem": "p", "answer": value} for value in (1, "2", 3.5, ["4"])]
    assert answers(load(write_lines(tmp_path / "a.jsonl", rows))) == ["1", "2", "3.5", "4"]


def test_csv_values_are_taken_as_written(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('problem,answer\n"What is 1,000 + 2?",1002\n"two\nlines",007\n\nq,NA\n', encoding="utf-8-sig")
    data = load(path)
    assert [(problem.problem, problem.answer) for problem in data.train] == [
        ("What is 1,000 + 2?", "1002"),
        ("two\nlines", "007"),
        ("q", "NA"),
    ]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_csv_with_the_separator_of_another_country_is_read(tmp_path: Path, mark: str) -> None:
    (tmp_path / "a.csv").write_text(f'problem{mark}answer\n"1{mark}2, 3"{mark}3,5\n')
    data = load(tmp_path / "a.csv")
    assert [(problem.problem, problem.answer) for problem in data.train] == [(f"1{mark}2, 3", "3,5")]


def test_the_line_of_a_record_is_where_it_begins(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('problem,answer\n"two\nlines",1\n"three\nlines",2,3\n')
    assert "line 4 has 3 fields" in refusal(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_line_of_a_million_characters_is_read(tmp_path: Path, name: str) -> None:
    text = "x" * 1_000_000
    (tmp_path / name).write_text(
        f"problem,answer\n{text},1\n" if name == "a.csv" else json.dumps({"problem": text, "answer": 1})
    )
    assert load(tmp_path / name).train[0].problem == text


def test_answers_longer_than_allowed_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"problem": f"p{n}", "answer": "9" * n} for n in (1, 5, 6)]
    path = write_lines(tmp_path / "a.jsonl", rows)
    data = load(path, max_answer_characters=5)
    assert answers(data) == ["9", "99999"]
    assert data.notes == ["1 row with an answer longer than task.max_answer_characters: left out"]
    assert "hold out" not in refusal(write_lines(path, rows[1:]), max_answer_characters=4)
    said = refusal(path, max_answer_characters=4)
    assert said.startswith("task.max_answer_characters = 4: all 2 answers of")
    assert said.endswith("are longer; the shortest has 5 characters")


def test_a_folder_with_a_file_a_split_is_read_as_written(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("problem,answer\np,007\nq,NA\n")
    write_lines(tmp_path / "dev.jsonl", [{"problem": "r", "answer": 8}, {"problem": "s", "answer": "2024-01-01"}])
    (tmp_path / "notes.txt").write_text("beside them")
    data = load(tmp_path, held_out=5)
    assert answers(data) == ["007", "NA"]
    assert {problem.id: problem.answer for problem in data.held_out} == {
        "validation-0": "8",
        "validation-1": "2024-01-01",
    }
    assert load(tmp_path, split="validation").train[0].problem == "r"
    assert "has no split tset; its splits: validation, train; did you mean" not in refusal(tmp_path, split="tset")
    assert "has no split trian; its splits: validation, train; did you mean train?" in refusal(tmp_path, split="trian")


def test_other_columns_can_be_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": "q", "gold": 4, "problem": "no"}])
    data = load(path, problem_column="question", answer_column="gold")
    assert data.train == [Problem("train-0", "q", "4")]


def test_rows_without_a_problem_or_an_answer_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [
        {"problem": "p", "answer": 0},
        {"problem": "  ", "answer": 1},
        {"problem": "q", "answer": None},
        {"problem": "r", "answer": float("nan")},
        {"problem": "s"},
    ]
    data = load(write_lines(tmp_path / "a.jsonl", rows))
    assert data.train == [Problem("train-0", "p", "0")]
    assert data.dropped == 4


def test_half_a_surrogate_pair_does_not_reach_the_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"problem": "p \\ud800", "answer": "1"}\n')
    assert load(tmp_path / "a.jsonl").train[0].problem == "p ?"


def test_held_out_problems_are_taken_by_seed_and_removed_from_training(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"problem": f"p{n}", "answer": n} for n in range(50)])
    data = load(path, held_out=20)
    assert len(data.held_out) == 20
    assert {problem.id for problem in data.train} == {f"train-{n}" for n in range(50)} - {p.id for p in data.held_out}
    assert load(path, held_out=20) == data
    assert load(path, held_out=20, seed=1).held_out != data.held_out


def test_a_text_that_occurs_twice_is_on_one_side_only(tmp_path: Path) -> None:
    rows = [{"problem": f"p {n % 10}" + " " * (n % 3), "answer": n % 10} for n in range(30)]
    data = load(write_lines(tmp_path / "a.jsonl", rows), held_out=4)
    assert len({problem.problem for problem in data.held_out}) == 4
    assert len(data.train) == 18
    assert {p.problem for p in data.train}.isdisjoint(p.problem for p in data.held_out)


def test_too_few_problems_to_hold_out_says_how_many_there_are(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"problem": f"p{n}", "answer": n} for n in range(5)])
    assert "has 5 different problems" in refusal(path, held_out=5)
    assert "hold out at most 4" in refusal(path, held_out=5)
    assert len(load(path, held_out=4).train) == 1


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"problem": "p", "answer": 1}])
    before = path.stat()
    assert answers(load(path)) == ["1"]
    write_lines(path, [{"problem": "p", "answer": 2}])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert answers(load(path)) == ["2"]


def test_a_missing_column_is_refused_with_the_columns_there_are(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": "q", "solution": "s"}])
    said = refusal(path, problem_column="qestion", answer_column="gold")
    assert "task.problem_column" in said
    assert "has no column qestion; it has the columns question, solution; did you mean question?" in said
    assert "task.answer_column" in said


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", "", "is empty: it has no rows"),
        ("a.json", "[]", "is empty: it has no rows"),
        ("a.csv", "", "is empty: it has no rows"),
        ("a.csv", "problem,answer\n", "is empty: it has no rows"),
        (
            "a.csv",
            "wert,answer\n",
            "has no column problem and none with a similar name; it has the columns wert, answer",
        ),
        ("a.csv", "\n\n", "is empty: it has no rows"),
        ("a.jsonl", " \n\t\n", "is empty: it has no rows"),
        ("a.jsonl", '{"problem": "", "answer": ""}\n', "none of the 1 rows of"),
        ("a.jsonl", '{"problem": "p", "answer": 1}\n{"problem": "q",\n', "a.jsonl line 2 is not valid JSON"),
        ("a.jsonl", '{"problem": "p", "answer": 1}\n7\n', "line 2 must be an object"),
        ("a.json", '[{"problem": "p"}, 7]', "item 2 is not one"),
        ("a.json", '[{"problem": "p",\n]', "is not valid JSON"),
        ("a.json", "7", "must be a list of objects"),
        ("a.csv", "problem,answer\nWhat is 1,000 + 2?,1002\n", "line 2 has 3 fields, but the header has 2"),
        ("a.csv", 'problem,answer\n"p,1\n', "is not valid CSV"),
        ("a.jsonl", '{"problem": {"text": "p"}, "answer": 1}\n', "line 1 of"),
        ("a.jsonl", '\n{"problem": "p", "answer": {"text": 1, "x": 2}}\n', "line 2 of"),
        (
            "a.jsonl",
            '{"problem": "p", "answer": {"text": 1, "x": 2}}\n',
            "(text, x); name one of its keys, such as answer.text",
        ),
        ("a.json", '[{"problem": "p", "answer": 1}, {"problem": ["q"], "answer": 1}]', "row 2 of"),
        (
            "a.json",
            '{"data": [{"problem": "p", "answer": 1}]}',
            "has its rows inside data; the file must contain only that list",
        ),
        ("a.csv", "problem;answer\nWhat is 1; or 2?;3\n", "put quotes around text that contains a semicolon"),
        ("a.csv", "problem,answer,answer\np,1,2\n", "has several columns named answer"),
        ("a.jsonl", '{"problem": "p", "answer": [{"x": 1}]}\n', "task.answer_column = 'answer'"),
        ("a.jsonl", '{"problem": "p", "answer": ' + "9" * 5000 + "}\n", "line 1 is not valid JSON"),
        ("a.jsonl", "[" * 100_000, "is not valid JSON"),
    ],
)
def test_files_that_cannot_be_used_are_refused_in_a_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    message = refusal(tmp_path / name)
    assert said in message
    assert "\n" not in message


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_a_parquet_file_is_read_with_its_types(tmp_path: Path) -> None:
    columns = {"problem": ["a", "b", None], "answer": [42.0, 0.5, 7.0], "left": [1, 2, 3]}
    data = load(write_parquet(tmp_path / "we[1]*rd.parquet", columns))
    assert [(p.problem, p.answer) for p in data.train] == [("a", "42"), ("b", "0.5")]
    assert data.dropped == 1


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"problem": pyarrow.array([], pyarrow.string()), "answer": pyarrow.array([], pyarrow.string())}, "is empty"),
        (
            {"wert": ["a"], "answer": ["1"]},
            "has no column problem and none with a similar name; it has the columns wert, answer",
        ),
    ],
)
def test_parquet_files_without_the_rows_or_columns_are_refused(tmp_path: Path, columns: Any, said: str) -> None:
    assert said in refusal(write_parquet(tmp_path / "a.parquet", columns))


def test_a_broken_parquet_file_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no parquet")
    said = refusal(tmp_path / "a.parquet")
    assert "a.parquet cannot be read as Parquet" in said
    assert "\n" not in said


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("problem,answer\nGrüße,1\n".encode("latin-1"))
    assert "a.csv line 2 is not UTF-8 text (byte 17); save the file as UTF-8" in refusal(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_bytes("problem,answer\nGrüße,1\n".encode("utf-16"))
    assert "a.csv is UTF-16 text; save it as UTF-8" in refusal(tmp_path / "a.csv")


def test_a_missing_file_is_refused_with_its_nearest_neighbour(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", [])
    said = refusal(tmp_path / "trian.jsonl")
    assert "there is no such file or folder" in said
    assert f"did you mean file:{tmp_path / 'train.jsonl'}?" in said


def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("")
    assert "must be a .jsonl, .json, .csv or .parquet file" in refusal(tmp_path / "a.xlsx")


def test_a_single_file_has_no_other_splits_and_no_options(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"problem": "p", "answer": 1}])
    assert "task.split = 'test': a single file has only the split train" in refusal(path, split="test")
    assert "task.options.config: there is no such option" in refusal(path, options={"config": "main"})
    assert len(load(path, split="train").train) == 1


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_lines(tmp_path / "a.jsonl", [{"problem": "p", "answer": 1}])
    assert len(load(Path("~/a.jsonl")).train) == 1


def test_importing_tasks_and_checking_a_file_loads_nothing_heavy(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"problem": "p", "answer": 1}])
    script = (
        "import sys; from aapo_desk import tasks; from aapo_desk.tasks import prompts, order;"
        "from aapo_desk.config import TaskConfig;"
        f"tasks.load(TaskConfig(source='file:{path}', held_out=0), 0);"
        "print(sorted({'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
