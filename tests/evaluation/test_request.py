"""Requests for an evaluation: what is allowed, what is refused with which words, and which problems it asks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.cli.app import run
from aapo_desk.config import resolve
from aapo_desk.evaluation.benchmarks import BENCHMARKS, SYSTEM_PROMPT, last_box
from aapo_desk.evaluation.request import Wanted, content_ids, read_problems, request
from aapo_desk.store import create_run
from aapo_desk.tasks import Problem
from tests.hub_server import go_offline_here

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(desk_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: dict[str, Any]) -> Path:
    """A folder with data, a run "plain" that has no checkpoint, and one of questions with a prompt of its own."""
    monkeypatch.chdir(tmp_path)
    write("sums.jsonl", [{"problem": f"{a} + 1", "answer": str(a + 1)} for a in range(30)])
    write("questions.jsonl", [{"question": "1 + 1", "answer": "some words #### 2"}])
    write("boxes.jsonl", [{"problem": "How far?", "solution": r"So \boxed{x} or \boxed{\frac{1}{2} \mathrm{m}}."}])
    write("grades.jsonl", [{"problem": "How good?", "grade": "very"}])
    Path("empty.jsonl").write_text("")
    create_run(resolve(tiny_config), "plain")
    asking = {"source": "file:questions.jsonl", "problem_column": "question", "system_prompt": "Be brief."}
    create_run(resolve(tiny_config | {"task": asking | {"held_out": 1}}), "asking")
    return tmp_path


def write(name: str, rows: Sequence[dict[str, str]]) -> None:
    Path(name).write_text("\n".join(map(json.dumps, rows)))


REFUSED: dict[str, tuple[list[str], str]] = {
    "no such run": (["nobody"], r"RUN = 'nobody': there is no such run"),
    "a folder that is no model": (["./", "--task", "gsm8k"], r"model\.id = '/.*': the folder has no config\.json"),
    "a folder that is not there": (
        ["./no", "--task", "file:sums.jsonl"],
        r"model\.id = '/.*/no': there is no such folder",
    ),
    "an unknown task": (["plain", "--task", "gms8k"], r"--task = 'gms8k': there is no such task.*mean gsm8k\?"),
    "a file without file:": (["plain", "--task", "sums.jsonl"], r"no such task.*did you mean file:sums\.jsonl\?"),
    "a model without a task": (["a/b"], r"--task: is missing: allowed are gsm8k, .*, file:PATH"),
    "a model's own problems": (["a/b", "--task", "own"], r"--task = 'own': a model has no held-out problems"),
    "a file that is not there": (["plain", "--task", "file:sum.jsonl"], r"no such file.*mean file:sums\.jsonl\?"),
    "an empty file": (["plain", "--task", "file:empty.jsonl"], r"task\.source: file:\S*empty\.jsonl is empty"),
    "a file with other columns": (
        ["plain", "--task", "file:grades.jsonl"],
        r"task\.answer_column: .*has no column answer and none with a similar name; it has the columns problem, grade; "
        r"name one: --set task\.",
    ),
    "a local copy of no benchmark": (
        ["plain", "--task", "file:sums.jsonl", "--data", "sums.jsonl"],
        r"--data = 'sums\.jsonl': is for a local copy of a named task",
    ),
    "a local copy that is not there": (
        ["plain", "--task", "gsm8k", "--data", "no.jsonl"],
        r"--data = 'no\.jsonl': there is no such file or folder",
    ),
    "a split of a single file": (["plain", "--task", "file:sums.jsonl", "--split", "test"], r"task\.split = 'test'"),
    "a split of one's own problems": (["plain", "--split", "test"], r"--split = 'test': a run's own"),
    "several greedy answers": (["plain", "--samples", "4"], r"--samples = 4: .*--temperature 0\.6"),
    "temperature 0": (["plain", "--temperature", "0"], r"--temperature = 0\.0: must be above 0; leave it out"),
    "no samples": (["plain", "--samples", "0", "--temperature", "1"], r"samples"),
    "no problems": (["plain", "--problems", "0"], r"problems"),
    "a setting that does nothing": (
        ["plain", "--set", "optimizer.learning_rate=1"],
        r"optimizer\.learning_rate = 1 \(from --set\): has no effect in an evaluation; these have: model\.\*",
    ),
    "a setting that is an option": (
        ["plain", "--set", "rollout.temperature=0.6"],
        r"rollout\.temperature = 0\.6 \(from --set\): use --temperature instead",
    ),
    "an unknown setting": (["plain", "--set", "modle.id=x"], r"modle\.id.*did you mean model\.id\?"),
    "a value that cannot be": (["plain", "--set", "rollout.top_p=2"], r"rollout\.top_p = 2 \(from --set\): must be"),
    "a step of a model": (["a/b", "--task", "gsm8k", "--step", "3"], r"--step = '3': a model has no checkpoints"),
    "a step that is none": (["plain", "--step", "first"], r"--step = 'first': must be a step number, best or last"),
    "a run without a checkpoint": (["plain"], r"RUN = 'plain': has no checkpoint yet.*aapo-desk eval "),
    "a GPU that is not there": (["plain", "--set", "model.device=cuda"], r"model\.device"),
}


@pytest.mark.parametrize(("arguments", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_use_is_refused_in_one_line(
    arguments: list[str], said: str, capsys: Output, monkeypatch: pytest.MonkeyPatch, desk_home: Path
) -> None:
    monkeypatch.setattr("aapo_desk.hardware.gpus", lambda: [])
    assert run(["eval", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(said, captured.err.splitlines()[-1])
    assert "Traceback" not in captured.err
    assert not (desk_home / "evaluations").exists()


def test_a_benchmark_is_asked_by_its_hub_name_with_a_box_for_the_answer() -> None:
    asked = request(Wanted("owner/model", "gsm8k"))
    task = asked.config.task
    assert (task.source, task.split, task.options) == ("hub:openai/gsm8k", "test", {"config": "main"})
    assert (task.problem_column, task.answer_column, task.system_prompt) == ("question", "answer", SYSTEM_PROMPT)
    assert [reward.name for reward in asked.config.rewards] == ["math"]
    assert asked.config.evaluation_tokens == BENCHMARKS["gsm8k"].max_new_tokens
    assert (asked.greedy, asked.run) == (True, None)


def test_of_a_run_the_model_stays_and_a_benchmark_brings_its_own_task_and_judge() -> None:
    asked = request(Wanted("plain", "math500", temperature=0.6, samples=4, max_new_tokens=99))
    assert asked.run is not None
    known = asked.run.read_config()
    assert asked.config.model == known.model
    assert asked.config.lora == known.lora
    assert asked.config.task.source == "hub:HuggingFaceH4/MATH-500"
    assert (asked.config.rollout.temperature, asked.config.evaluation_tokens) == (0.6, 99)
    assert [reward.name for reward in asked.config.rewards] == ["math"]


def test_without_a_task_a_run_is_asked_its_own_held_out_problems_as_it_asks_them() -> None:
    asked = request(Wanted("plain"))
    assert asked.run is not None
    known = asked.run.read_config()
    assert asked.task == "own"
    assert (asked.config.task, asked.config.rewards) == (known.task, known.rewards)
    assert (asked.config.evaluation_tokens, asked.most) == (known.evaluation_tokens, known.evaluated_problems)


def test_a_file_is_asked_as_the_runs_problems_were() -> None:
    asked = request(Wanted("asking", "file:questions.jsonl"))
    assert asked.config.task.system_prompt == "Be brief."
    assert read_problems(asked)[0] == [Problem("train-0", "1 + 1", "2")]


@pytest.mark.parametrize("name", ["sums.jsonl", "questions.jsonl"])
def test_the_usual_columns_are_found_in_a_local_copy(name: str) -> None:
    problems, total = read_problems(request(Wanted("plain", "gsm8k", data=name)))
    assert len(problems) == total > 0


def test_columns_that_nobody_named_are_guessed_as_in_training() -> None:
    write("others.jsonl", [{"prompt": "1 + 1", "solution": "2"}])
    create_run(resolve({"model": {"id": "a/b"}, "task": {"source": "file:others.jsonl", "held_out": 0}}), "guessing")
    assert read_problems(request(Wanted("guessing", "file:others.jsonl")))[0] == [Problem("train-0", "1 + 1", "2")]


@pytest.mark.usefixtures("served_hub")
def test_where_the_hub_has_no_task_the_line_says_how_to_do_without_it(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_offline_here(monkeypatch)
    assert run(["eval", "a/b", "--task", "gsm8k"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("aapo-desk: the data set openai/gsm8k, revision main, is not in the cache")
    assert said.endswith("; to use a local copy with --task gsm8k, add --data PATH")


def test_a_worked_solution_gives_what_stands_in_its_last_box() -> None:
    asked = request(Wanted("a/b", "minerva", data="boxes.jsonl"))
    assert [problem.answer for problem in read_problems(asked)[0]] == [r"\frac{1}{2} \mathrm{m}"]
    assert last_box("no box") == "no box"
    assert last_box(r"\boxed{open") == r"\boxed{open"


def test_so_many_problems_are_the_same_ones_whatever_their_order_and_more_of_them_hold_the_fewer(here: Path) -> None:
    def chosen(count: int) -> set[str]:
        problems, total = read_problems(request(Wanted("a/b", "file:sums.jsonl", problems=count)))
        assert (len(problems), total) == (min(count, 30), 30)
        return {problem.problem for problem in problems}

    few, more = chosen(7), chosen(12)
    assert few < more
    assert len(chosen(99)) == 30
    (here / "sums.jsonl").write_text("\n".join(reversed((here / "sums.jsonl").read_text().splitlines())))
    assert chosen(7) == few


def test_a_problem_is_named_by_its_content() -> None:
    one, spaced = Problem("train-0", "What is  1 + 1?", "2"), Problem("test-7", "What is 1 + 1?", "2")
    (first,), (other,) = content_ids([one]), content_ids([spaced])
    assert first == other
    assert first != content_ids([Problem("train-0", "What is 1 + 1?", "3")])[0]
    assert content_ids([one, one, spaced]) == [first, f"{first}-2", f"{first}-3"]
