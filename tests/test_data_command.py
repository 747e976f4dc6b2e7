"""``aapo-desk data``: what was understood of a data set, in lines and as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from aapo_desk.cli.app import run
from aapo_desk.cli.data import lines

Output = pytest.CaptureFixture[str]
ROWS = [{"question": f"What is {n} + {n}?", "target": f"It is so.\n#### {2 * n}", "id": n} for n in range(12)]


@pytest.fixture(autouse=True)
def here(desk_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: dict[str, Any]) -> Path:
    """A folder with a data set, a preset of the tiny model on it, and what is no data."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    rows = [*ROWS, {"question": "", "target": "1"}, {"question": "Why?"}, {"question": "word " * 300, "target": "1"}]
    Path("sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"source": "file:sums.jsonl", "held_out": 2, "max_prompt_tokens": 200}
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny_config | {"task": task}))
    Path("empty.csv").touch()
    Path("notes.txt").write_text("some words")
    Path("broken.jsonl").write_text('{"problem": "p", "answer": 1}\n{"problem": \n')
    return folder


def document(*arguments: str, capsys: Output) -> dict[str, Any]:
    assert run(["data", *arguments, "--json"]) == 0
    captured = capsys.readouterr()
    found: dict[str, Any] = json.loads(captured.out)
    assert captured.err == ""
    return found


def test_a_presets_data_are_shown_as_the_prompts_that_the_model_gets(capsys: Output) -> None:
    found = document("tiny.yaml", "--set", "task.min_prompt_tokens=10", capsys=capsys)
    assert (found["source"], found["train"] + found["held_out"]) == ("file:sums.jsonl", 12)
    reading = found["reading"]
    assert (reading["splits"], reading["trained_on"], reading["held_out_from"]) == ({"train": 15}, "train", "train")
    assert reading["problem"] == {"name": "question", "how": "guessed", "others": []}
    assert reading["answer"] == {"name": "target", "how": "guessed", "others": []}
    assert (reading["no_problem"], reading["no_answer"]) == (1, 1)
    assert found["prompts"]["too_long"] == 1
    assert 20 < found["prompts"]["shortest"] < 200
    assert len(found["problems"]) == 3
    for problem in found["problems"]:
        assert re.fullmatch(r"<\|im_start\|>user\nWhat is .*<\|im_end\|>\n<\|im_start\|>assistant\n", problem["prompt"])
        assert problem["answer"] == str(2 * int(problem["id"].partition("-")[2]))

    told = lines(found)
    assert told[:4] == [
        "source  file:sums.jsonl",
        "splits  train 15 rows; trained on train, held out from train",
        "problem the column question (a guess)",
        "answer  the column target (a guess)",
    ]
    assert re.fullmatch(r"used    1\d problems to train on, [12] held out", told[4])
    assert re.fullmatch(r"prompts \d+ to \d+ tokens; 1 too long, left out", told[5])
    assert told.count("   <|im_start|>assistant") == 3


def test_the_lines_say_what_was_guessed_and_left_out(capsys: Output) -> None:
    assert run(["data", "sums.jsonl"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "reading file:sums.jsonl\n"
    told = captured.out.splitlines()
    assert "used    13 problems to train on, 0 held out" in told
    assert "prompts not measured: no model is given" in told
    assert "note    using the column question as the problem; to choose another: --set task.problem_column=NAME" in told
    assert "note    1 row without an answer: left out" in told
    assert told[-3:] == ["3  train-2", "   What is 2 + 2?", "   answer: 4"]


def test_a_file_alone_is_looked_at_without_a_model(capsys: Output) -> None:
    found = document("sums.jsonl", "--set", "task.answer_column=id", capsys=capsys)
    assert found["prompts"] is None
    assert found["no_prompts"] == "no model is given"
    assert [problem["answer"] for problem in found["problems"]] == ["0", "1", "2"]
    assert found["problems"][0]["problem"] == "What is 0 + 0?"
    assert found["reading"]["answer"]["how"] == "named"


def test_a_folder_that_is_called_like_a_preset_does_not_stand_in_for_it(capsys: Output) -> None:
    Path("demo").mkdir()
    Path("mine").mkdir()
    Path("mine/train.jsonl").write_text('{"problem": "p", "answer": 1}')
    assert document("demo", "--set", "model.id=owner/not-here", capsys=capsys)["source"] == "arithmetic"
    assert document("mine", capsys=capsys)["reading"]["splits"] == {"train": 1}


def test_a_model_that_is_not_here_is_not_fetched(capsys: Output) -> None:
    found = document("tiny.yaml", "--set", "model.id=owner/not-here", capsys=capsys)
    assert found["no_prompts"] == "owner/not-here is not on this machine yet"
    assert found["problems"][0]["prompt"] is None


REFUSED: dict[str, tuple[list[str], str]] = {
    "no preset of this name": (["demmo"], r"demmo.*did you mean demo\?"),
    "a file that is not there": (["sms.jsonl"], r"task\.source = 'file:sms\.jsonl'.*did you mean file:sums\.jsonl\?"),
    "a file of another kind": (
        ["notes.txt"],
        r"task\.source = 'file:notes\.txt'.*: must be a \.jsonl, \.json, \.csv or ",
    ),
    "an empty file": (["empty.csv"], r"task\.source: file:empty\.csv is empty"),
    "a line that is no JSON": (["broken.jsonl"], r"broken\.jsonl line 2 is not valid JSON"),
    "a column that is not there": (
        ["sums.jsonl", "--set", "task.answer_column=targt"],
        r"task\.answer_column: .* no column targt; it has the columns question, target, id; did you mean target\?",
    ),
    "prompts to be longer than they may be": (
        ["tiny.yaml", "--set", "task.min_prompt_tokens=300"],
        r"task.*: min_prompt_tokens \(300\) is above max_prompt_tokens \(200\); no prompt would be left",
    ),
    "an unknown difficulty": (
        ["tiny.yaml", "--set", "task.difficulty=hard"],
        r"task\.difficulty = 'hard' .*must be 'off' or 'adaptive'",
    ),
    "answers of no length": (
        ["tiny.yaml", "--set", "task.max_answer_characters=0"],
        r"task\.max_answer_characters = 0.*greater than or equal to 1",
    ),
    "a wrong setting": (["sums.jsonl", "--set", "task.anser_column=x"], r"did you mean task\.answer_column\?"),
    "nothing": ([], r"Missing argument 'PRESET\|FILE'"),
}


@pytest.mark.parametrize(("arguments", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_is_refused_in_one_line_with_status_2(arguments: list[str], expected: str, capsys: Output) -> None:
    assert run(["data", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    said = [line for line in captured.err.splitlines() if not line.startswith(("reading ", "measuring "))]
    assert len(said) == 1, said
    assert re.search(expected, said[0]), said[0]
