"""Worked solutions for a warm start: where they come from, what is written, which are taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import tasks
from aapo_desk.config import ConfigError, RunConfig, TaskConfig, resolve
from aapo_desk.rewards.base import Completion
from aapo_desk.rewards.countdown import build
from aapo_desk.tasks import Problem
from aapo_desk.tasks.solutions import Worked, choose

GSM8K = {"question": "How many?", "answer": "He has 48/2 = <<48/2=24>>24 clips.\n24 in all.\n#### 24"}


class Letters:
    """A tokenizer of a token a letter."""

    chat_template = None

    def apply_chat_template(self, *_: Any, **__: Any) -> Any: ...

    def encode(self, text: str, **_: Any) -> list[int]:
        return [ord(letter) for letter in text]


def configured(**settings: Any) -> RunConfig:
    """``warm_start`` by its names, all else by its path with ``__`` for the dot."""
    frame = {"model": {"id": "m"}, "task": {"source": "arithmetic"}, "rollout": {"max_new_tokens": 20}}
    paths = {key.replace("__", ".") if "__" in key else f"warm_start.{key}": item for key, item in settings.items()}
    return resolve(frame, {"warm_start.solutions": 1} | paths)


def chosen(problem: Problem, **settings: Any) -> str:
    worked = choose(Letters(), [problem], configured(**settings))
    assert worked
    return worked.texts[0]


def read(folder: Path, *rows: dict[str, Any], **settings: Any) -> tasks.TaskData:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tasks.load(TaskConfig(source=f"file:{path}", held_out=0, **settings), 0)


@pytest.mark.parametrize(
    ("template", "written"),
    [
        (None, "He has 48/2 = 24 clips.\n24 in all.\n#### 24"),
        ("<think>{solution}</think>{answer}", "<think>He has 48/2 = 24 clips.\n24 in all.</think>24"),
        (r"{solution} So \boxed{{{answer}}}.", "He has 48/2 = 24 clips.\n24 in all. So \\boxed{24}."),
        ("{answer}", "24"),
    ],
)
def test_a_column_of_solutions_is_written_as_it_stands_or_by_a_template(
    tmp_path: Path, template: str | None, written: str
) -> None:
    (problem,) = read(tmp_path, GSM8K, solution_column="answer").train
    assert problem.answer == "24"
    assert chosen(problem, template=template, rollout__max_new_tokens=99) == written


def test_solutions_are_read_only_where_their_column_is_named_and_rows_without_one_are_counted(tmp_path: Path) -> None:
    rows = [{"problem": f"p{n}", "answer": n, "steps": f"s{n}" if n else None} for n in range(3)]
    assert [problem.solution for problem in read(tmp_path, *rows).train] == [""] * 3
    data = read(tmp_path, *rows, solution_column="steps")
    assert [problem.solution for problem in data.train] == ["", "s1", "s2"]
    assert data.notes == ["1 row without a worked solution: kept, but not used for a warm start"]
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "so 5"}]
    talk = read(tmp_path, {"problem": "p", "answer": 5, "talk": said}, solution_column="talk")
    assert talk.train[0].solution == "so 5"


def test_generated_problems_bring_a_solution_that_their_reward_finds_right() -> None:
    (sum_, *_) = tasks.load(TaskConfig(source="arithmetic", held_out=1), 0).train
    assert sum_.solution == sum_.answer
    reward = build({})
    for options in ({}, {"numbers": 5}, {"all_numbers": False}, {"solution": "{expression}", "operations": "+-"}):
        made = tasks.load(TaskConfig(source="countdown", held_out=1, options={"problems": 50} | options), 0)
        for problem in made.train:
            text = problem.solution
            assert reward(Completion(text, problem.problem, problem.answer, 1, 1, False)) == 1, (text, problem.answer)
    asked = tasks.load(TaskConfig(source="countdown", held_out=1, options={"numbers": 3, "problems": 1}), 0).train[0]
    steps, _, answer = asked.solution.partition("</think>\n<answer>")
    assert steps.startswith("<think>")
    assert steps.count("=") == 2
    assert answer.endswith("</answer>")


def test_the_seed_chooses_and_the_rest_are_counted_when_they_are_too_long() -> None:
    problems = [Problem(f"{n}", "p", "a", solution="x" * n) for n in range(60)]

    def places(seed: int) -> Worked:
        found = choose(Letters(), problems, configured(solutions=8, run__seed=seed))
        assert found
        return found

    one = places(1)
    assert one == places(1)
    assert one.places != places(2).places
    assert len(set(one.places)) == 8
    assert all(0 < place < 20 for place in one.places)  # 19 and the end are 20
    assert one.too_long > 0
    assert f"; {one.too_long} longer than rollout.max_new_tokens were left out" in one.words()
    assert choose(Letters(), problems, configured(solutions=0)) is None


LONG = [Problem("1", "p", "24", solution="x" * 30), Problem("2", "p", "24", solution="x" * 40)]
PLAIN = [Problem("1", "p", "24"), Problem("2", "p", "24")]
REFUSED: dict[str, tuple[list[Problem], dict[str, Any], str]] = {
    "more than there are problems": (
        LONG,
        {"solutions": 3},
        r"warm_start\.solutions = 3: there are only 2 problems to train on; use at most 2 solutions",
    ),
    "all too long": (
        LONG,
        {},
        r"only 0 of 2 worked solutions fit in rollout\.max_new_tokens \(20\), .* the shortest has 31 tokens",
    ),
    "no column named": (
        PLAIN,
        {"task__source": "file:x.jsonl"},
        r"x\.jsonl has no worked solutions; name their column with task\.solution_column, or train on the answer "
        r"alone: --set 'warm_start\.template=\{answer\}'",
    ),
    "an empty column": (
        PLAIN,
        {"task__source": "file:x.jsonl", "task__solution_column": "steps"},
        "the column steps has no text; name",
    ),
    "a source that has none": (
        PLAIN,
        {"task__source": "reasoning-gym:chain_sum"},
        "reasoning-gym:chain_sum has no worked solutions; train on the answer alone",
    ),
    "some without": ([*PLAIN, LONG[0]], {"solutions": 2, "rollout__max_new_tokens": 40}, "only 1 of the problems"),
    "another name in braces": (
        LONG,
        {"template": "{steps}"},
        r"warm_start\.template = '\{steps\}': may contain \{solution\} and \{answer\}, and nothing else in braces",
    ),
    "unpaired braces": (LONG, {"template": r"\boxed{answer"}, "has unpaired braces"),
    "the same for all": (LONG, {"template": "I know."}, "the same for every problem"),
    "no epoch": (LONG, {"epochs": 0}, r"warm_start\.epochs = 0.*greater than or equal to 1"),
    "a negative number": (LONG, {"solutions": -1}, r"warm_start\.solutions = -1.*greater than or equal to 0"),
    "a rate of zero": (LONG, {"learning_rate": 0}, r"warm_start\.learning_rate = 0.*greater than 0"),
}


@pytest.mark.parametrize(("problems", "settings", "said"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_warm_start_is_refused_in_one_line(
    problems: list[Problem], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        choose(Letters(), problems, configured(**settings))
    assert "\n" not in str(caught.value)


def test_a_solution_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"task\.solution_column.* no column step; it has the columns problem, answer, steps; did"
    ):
        read(tmp_path, {"problem": "p", "answer": 1, "steps": "s"}, solution_column="step")
