from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aapo_desk import tasks
from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.tasks import Problem, TaskData


def load(held_out: int = 100, seed: int = 0, **options: Any) -> TaskData:
    return tasks.load(TaskConfig(source="arithmetic", held_out=held_out, options=options), seed)


def refusal(held_out: int = 10, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        tasks.check(TaskConfig(source="arithmetic", held_out=held_out, options=options))
    return str(caught.value)


def pair(problem: Problem) -> tuple[str, frozenset[int]]:
    """Operation and operands without their order, read from an id of numbers that are not negative."""
    op = next(sign for sign in "+-*" if sign in problem.id)
    return op, frozenset(int(number) for number in problem.id.split(op))


def test_default_problems_are_sums_of_1_to_20_with_their_answers() -> None:
    data = load()
    for problem in data.train + data.held_out:
        a, b = map(int, problem.id.split("+"))
        assert 1 <= a <= 20
        assert 1 <= b <= 20
        assert problem.problem == f"What is {a} + {b}? Answer with just the number."
        assert problem.answer == str(a + b)


@settings(max_examples=60, deadline=None)
@given(
    low=st.integers(0, 3),
    span=st.integers(3, 40),
    operations=st.lists(st.sampled_from("+-*"), min_size=1, unique=True),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31 - 1),
)
def test_held_out_pairs_are_never_trained_on_in_either_order(
    low: int, span: int, operations: list[str], share: float, seed: int
) -> None:
    pairs = len(operations) * (span + 1) * (span + 2) // 2
    held_out = min(int(share * pairs), pairs - 1)
    data = load(held_out, seed, low=low, high=low + span, operations=operations, problems=10**6)
    held_out_pairs = {pair(problem) for problem in data.held_out}
    trained_pairs = {pair(problem) for problem in data.train}
    assert len(data.held_out) == len(held_out_pairs) == held_out
    assert held_out_pairs.isdisjoint(trained_pairs)
    assert len(held_out_pairs) + len(trained_pairs) == pairs
    assert len({problem.id for problem in data.train}) == len(data.train)


def test_both_orders_of_a_sum_are_trained_on() -> None:
    ids = {problem.id for problem in load(0, high=3, low=1).train}
    assert ids == {f"{a}+{b}" for a in (1, 2, 3) for b in (1, 2, 3)}


def test_a_difference_has_the_larger_number_first_and_no_negative_answer() -> None:
    data = load(0, low=-2, high=2, operations=["-"])
    assert len(data.train) == 15
    assert all(int(problem.answer) >= 0 for problem in data.train)
    assert Problem("1--2", "What is 1 - -2? Answer with just the number.", "3", solution="3") in data.train


def test_products_are_multiplied() -> None:
    answers = {problem.id: problem.answer for problem in load(0, low=6, high=7, operations="times").train}
    assert answers == {"6*6": "36", "6*7": "42", "7*6": "42", "7*7": "49"}


def test_the_same_seed_gives_the_same_problems_in_every_process() -> None:
    script = (
        "import json; from aapo_desk import tasks; from aapo_desk.config import TaskConfig;"
        "d = tasks.load(TaskConfig(source='arithmetic', options={'operations': '+-*'}), 5);"
        "print(json.dumps([[p.id for p in d.train], [p.id for p in d.held_out]]))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    ]
    here = load(seed=5, operations="+-*")
    expected = [[problem.id for problem in here.train], [problem.id for problem in here.held_out]]
    assert [json.loads(run) for run in runs] == [expected, expected]


def test_another_seed_gives_other_problems_to_both_sides() -> None:
    first, second = load(seed=0), load(seed=1)
    assert {problem.id for problem in first.held_out} != {problem.id for problem in second.held_out}
    assert [problem.id for problem in first.train] != [problem.id for problem in second.train]


def test_the_number_of_training_problems_does_not_change_what_is_held_out() -> None:
    assert load(problems=50).held_out == load(problems=500).held_out
    assert len(load(problems=50).train) == 50


def test_a_very_wide_range_is_sampled_and_not_listed() -> None:
    data = load(low=-(10**8), high=10**8, operations=["+", "-", "*"])
    assert len(data.train) == 1000
    assert len(data.held_out) == 100
    assert len({problem.id for problem in data.train}) == 1000


@pytest.mark.parametrize(
    ("written", "meant"),
    [("+", "+"), ("plus, minus", "+-"), (["×"], "*"), ("+-*", "+-*"), (["Plus", "x"], "+*"), (["+", "plus"], "+")],
)
def test_operations_may_be_spelled_as_people_do(written: Any, meant: str) -> None:
    signs = {pair(problem)[0] for problem in load(1, operations=written).train}
    assert signs == set(meant)


def test_a_template_of_ones_own_is_filled_in() -> None:
    data = load(0, low=2, high=2, template="{a} und {b} sind {{was}}?")
    assert data.train == [Problem("2+2", "2 und 2 sind {was}?", "4", solution="4")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hgih": 3}, "did you mean task.options.high?"),
        ({"operations": ["/"]}, "task.options.operations = ['/']: unknown operation /"),
        ({"operations": []}, "must be a list of +, - and *"),
        ({"operations": 3}, "must be a list of +, - and *"),
        ({"low": 5, "high": 4}, "task.options.low = 5: must not be above high (4)"),
        ({"low": True}, "must be a number, not true or false"),
        ({"high": 1.5}, "must be a valid integer"),
        ({"high": 10**9}, "must be less than or equal to 100000000"),
        ({"problems": 0}, "must be greater than or equal to 1"),
        ({"template": "What is {a}?"}, "must contain {a} and {b}"),
        ({"template": "{a.__class__} {b}"}, "nothing else in braces"),
        ({"template": "{a} {b} {"}, "unpaired braces"),
        ({"template": "{a} and {b}", "operations": "+-"}, "must contain {op}"),
    ],
)
def test_options_that_make_no_task_are_refused(options: dict[str, Any], said: str) -> None:
    assert said in refusal(**options)


def test_a_range_with_too_few_pairs_says_how_many_there_are_and_what_to_change() -> None:
    said = refusal(held_out=45, high=9)
    assert said.startswith("task.held_out = 45: the numbers 1 to 9 make 45 different problems with +")
    assert "hold out at most 44, or widen the range from task.options.low to task.options.high" in said
    assert len(load(44, high=9).held_out) == 44


def test_a_split_of_generated_problems_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.split = 'test': arithmetic is generated"):
        tasks.check(TaskConfig(source="arithmetic", split="test"))
