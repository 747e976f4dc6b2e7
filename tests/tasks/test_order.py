from __future__ import annotations

import subprocess
import sys

import pytest

from aapo_desk.tasks.order import step_problems


def walk(count: int, per_step: int, steps: int, seed: int = 0) -> list[int]:
    return [index for step in range(1, steps + 1) for index in step_problems(count, per_step, step, seed)]


def test_every_problem_comes_once_before_any_comes_again() -> None:
    order = walk(10, 4, 5)
    assert sorted(order[:10]) == list(range(10))
    assert sorted(order[10:]) == list(range(10))


def test_epochs_and_seeds_differ_in_their_order() -> None:
    order = walk(50, 5, 20)
    assert order[:50] != order[50:]
    assert order != walk(50, 5, 20, seed=1)


def test_a_step_does_not_depend_on_the_steps_asked_before() -> None:
    assert [step_problems(7, 3, step, 4) for step in (9, 2, 5)] == [
        walk(7, 3, 9, 4)[-3:],
        walk(7, 3, 2, 4)[-3:],
        walk(7, 3, 5, 4)[-3:],
    ]


def test_a_step_may_want_more_problems_than_there_are() -> None:
    assert sorted(step_problems(2, 6, 1, 0)) == [0, 0, 0, 1, 1, 1]


def test_another_process_gets_the_same_order() -> None:
    script = "from aapo_desk.tasks.order import step_problems; print(step_problems(1000, 8, 200, 3))"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert run.stdout.strip() == str(step_problems(1000, 8, 200, 3))


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_numbers_below_one_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        step_problems(*numbers, seed=0)
