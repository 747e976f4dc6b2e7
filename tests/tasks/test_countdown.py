from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from aapo_desk import tasks
from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.rewards.countdown import rules_of
from aapo_desk.tasks import Problem, TaskData


def load(held_out: int = 20, seed: int = 0, **options: Any) -> TaskData:
    return tasks.load(TaskConfig(source="countdown", held_out=held_out, options={"problems": 100} | options), seed)


def refusal(held_out: int = 10, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        tasks.load(TaskConfig(source="countdown", held_out=held_out, options=options), 0)
    return str(caught.value)


def numbers_of(problem: Problem) -> list[int]:
    """The numbers of a problem, of its id: ``98=19,35,44``."""
    return [int(number) for number in problem.id.partition("=")[2].split(",")]


def reachable(numbers: list[Fraction], signs: str) -> set[Fraction]:
    """All that the numbers can make, every one used: two are joined in every way, and so on."""
    if len(numbers) == 1:
        return set(numbers)
    made = set()
    for (i, a), (j, b) in permutations(enumerate(numbers), 2):
        rest = [number for place, number in enumerate(numbers) if place not in (i, j)]
        for sign in signs:
            if sign == "/" and not b:
                continue
            joined = {"+": a + b, "-": a - b, "*": a * b}.get(sign) if sign != "/" else a / b
            assert joined is not None
            made |= reachable([joined, *rest], signs)
    return made


def test_a_problem_names_its_numbers_and_target_and_how_to_answer() -> None:
    [problem] = load(0, problems=1, numbers=2, low=7, high=7, target_low=14, target_high=14).train
    assert problem.id == "14=7,7"
    assert problem.answer == "14 from 7, 7"
    assert problem.problem == (
        "Make 14 out of the numbers 7 and 7. Use each number exactly once, with +, -, * and / and brackets. Think "
        "inside <think> </think>, then give the expression inside <answer> </answer>, such as "
        "<answer>(7 + 2) - 3</answer>."
    )


@pytest.mark.parametrize("signs", ["+", "+-", "*/", "+-*/"])
def test_every_problem_can_be_solved(signs: str) -> None:
    data = load(10, problems=40, numbers=[2, 3, 4], high=12, target_low=1, target_high=60, operations=signs)
    assert len(data.train) == 40
    for problem in data.train + data.held_out:
        numbers = numbers_of(problem)
        assert rules_of(problem.answer, True).target in reachable([Fraction(number) for number in numbers], signs)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(2, 5), min_size=1, max_size=3),
    low=st.integers(1, 9),
    span=st.integers(4, 60),
    operations=st.lists(st.sampled_from("+-*/"), min_size=1, unique=True),
    all_numbers=st.booleans(),
    seed=st.integers(0, 2**31 - 1),
)
def test_problems_keep_their_options_and_held_out_ones_are_never_trained_on(
    counts: list[int], low: int, span: int, operations: list[str], all_numbers: bool, seed: int
) -> None:
    options = {"numbers": counts, "low": low, "high": low + span, "target_low": 1, "target_high": 10**6}
    try:
        data = load(1, seed, operations=operations, all_numbers=all_numbers, problems=20, **options)
    except ConfigError:  # such as five numbers that must be divided: hardly any come out even
        reject()
    ids = [problem.id for problem in data.train + data.held_out]
    assert len(set(ids)) == len(ids)
    for problem in data.train + data.held_out:
        numbers, rules = numbers_of(problem), rules_of(problem.answer, True)
        assert len(numbers) in counts
        assert all(low <= number <= low + span for number in numbers)
        assert sorted(rules.numbers.elements()) == numbers
        assert rules.signs == set(operations)
        assert rules.all_numbers is all_numbers
        assert problem.id == f"{rules.target}={','.join(map(str, numbers))}"


def test_targets_lie_in_their_range() -> None:
    targets = {rules_of(problem.answer, True).target for problem in load(target_low=30, target_high=40).train}
    assert targets <= set(range(30, 41))
    assert len(targets) > 5


def test_the_numbers_do_not_stand_in_the_order_of_their_size() -> None:
    shown = [rules_of(problem.answer, True).numbers for problem in load(0, numbers=4).train]
    assert any(list(numbers) != sorted(numbers) for numbers in shown)


def test_where_numbers_may_be_left_out_the_target_is_none_of_them() -> None:
    data = load(all_numbers=False, high=12, target_low=1, target_high=12)
    assert data.train
    for problem in data.train:
        assert rules_of(problem.answer, True).target not in numbers_of(problem)
        assert "at most once" in problem.problem
        assert " from some of " in problem.answer


def test_the_same_seed_gives_the_same_problems_in_every_process() -> None:
    script = (
        "import json; from aapo_desk import tasks; from aapo_desk.config import TaskConfig;"
        "d = tasks.load(TaskConfig(source='countdown', held_out=20, options={'problems': 100}), 5);"
        "print(json.dumps([[p.id for p in d.train], [p.id for p in d.held_out]]))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    here = load(seed=5)
    assert json.loads(run.stdout) == [[problem.id for problem in side] for side in (here.train, here.held_out)]
    other = load(seed=6)
    assert [problem.id for problem in other.held_out] != [problem.id for problem in here.held_out]


def test_the_number_of_training_problems_does_not_change_what_is_held_out() -> None:
    assert load(problems=5).held_out == load(problems=50).held_out
    assert len(load(problems=5).train) == 5


def test_a_small_range_is_used_up_and_not_waited_for() -> None:
    data = load(2, numbers=2, low=1, high=3, target_low=1, target_high=9, operations="+", problems=1000)
    found = {problem.id for problem in data.train + data.held_out}
    assert found == {f"{a + b}={a},{b}" for a, b in product((1, 2, 3), repeat=2) if a <= b}


def test_a_template_of_ones_own_is_filled_in() -> None:
    data = load(
        0,
        problems=1,
        numbers=2,
        low=3,
        high=3,
        target_low=6,
        target_high=6,
        operations="+",
        template="{target}: {numbers}",
    )
    solution = "<think>3 + 3 = 6</think>\n<answer>3 + 3</answer>"
    assert data.train == [Problem("6=3,3", "6: 3 and 3", "6 from 3, 3 by +", solution=solution)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"nubmers": 3}, "task.options.nubmers: countdown has no such option; its options are numbers, low, high,"),
        ({"nubmers": 3}, "did you mean task.options.numbers?"),
        ({"numbers": 1}, "task.options.numbers.0 = 1: must be greater than or equal to 2"),
        ({"numbers": [3, 9]}, "task.options.numbers.1 = 9: must be less than or equal to 8"),
        ({"numbers": []}, "task.options.numbers = []: must have at least 1 item"),
        ({"numbers": "many"}, "task.options.numbers.0 = 'many': must be a valid integer"),
        ({"numbers": True}, "task.options.numbers.0 = True: must be a number, not true or false"),
        ({"low": 0}, "task.options.low = 0: must be greater than or equal to 1"),
        ({"low": 9, "high": 8}, "task.options.low = 9: must not be above high (8)"),
        ({"target_low": 9, "target_high": 8}, "task.options.target_low = 9: must not be above target_high (8)"),
        ({"high": 10**9}, "task.options.high = 1000000000: must be less than or equal to 1000000"),
        (
            {"operations": ["^"]},
            "task.options.operations = ['^']: unknown operation ^; must be a list of +, -, * and /",
        ),
        ({"operations": []}, "must be a list of +, -, * and /"),
        ({"all_numbers": "perhaps"}, "task.options.all_numbers = 'perhaps': must be a valid boolean"),
        ({"problems": 0}, "task.options.problems = 0: must be greater than or equal to 1"),
        (
            {"template": "Make {target}!"},
            "must contain {numbers} and {target}, may contain {once} and {operations}, and nothing",
        ),
        ({"template": "{target} {numbers} {"}, "unpaired braces"),
        (
            {"target_low": 5000, "target_high": 6000, "operations": "+"},
            "task.options: no problem was found: the numbers",
        ),
        (
            {"numbers": 2, "high": 3, "target_low": 1, "operations": "+"},
            "task.held_out = 10: only 6 different problems were found with the options of countdown, and some must",
        ),
    ],
)
def test_options_that_make_no_task_are_refused_in_one_line(options: dict[str, Any], said: str) -> None:
    message = refusal(**options)
    assert said in message
    assert len(message.splitlines()) == 1


def test_a_split_of_generated_problems_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.split = 'test': countdown is generated"):
        tasks.check(TaskConfig(source="countdown", split="test"))


def test_a_file_of_solutions_is_a_countdown_task_too(tmp_path: Path) -> None:
    rows = [{"problem": f"Make {a + 2} out of {a} and 2.", "answer": f"{a} + 2", "nums": [a, 2]} for a in range(3, 9)]
    (tmp_path / "game.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = tasks.load(TaskConfig(source=f"file:{tmp_path / 'game.jsonl'}", held_out=2), 0)
    for problem in data.train + data.held_out:
        rules = rules_of(problem.answer, True)
        assert problem.problem == f"Make {rules.target} out of {max(rules.numbers)} and 2."
