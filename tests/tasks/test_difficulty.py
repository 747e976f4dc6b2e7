"""Problems that are always or never solved come less often, never not at all, and the same after a resume."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest

from aapo_desk.tasks.difficulty import Difficulty
from aapo_desk.tasks.order import step_problems

Group = list[float | None]
SOLVED: Group = [1.0, 1.0]
UNSOLVED: Group = [0.0, 0.0]
MIXED: Group = [0.0, 1.0]


def difficulty(count: int = 10) -> Difficulty:
    return Difficulty([f"p{index}" for index in range(count)], seed=4)


def walk(walked: Difficulty, steps: int, scores: Callable[[int], Group], per_step: int = 3) -> list[int]:
    """The problems of some steps, whose groups get what ``scores`` says."""
    seen = []
    for _ in range(steps):
        choice = walked.choose(per_step)
        walked.record(choice, [scores(index) for index in choice.problems])
        seen += choice.problems
    return seen


def test_while_every_group_has_differences_the_order_is_the_usual_one() -> None:
    usual = [index for step in range(1, 31) for index in step_problems(10, 3, step, 4)]
    assert walk(difficulty(), 30, lambda _: MIXED) == usual


@pytest.mark.parametrize("alike", [SOLVED, UNSOLVED, [0.5, 0.5, None]])
def test_problems_without_differences_come_about_an_eighth_as_often(alike: Group) -> None:
    walked = difficulty()
    walk(walked, 20, lambda index: alike if index < 5 else MIXED)
    seen = Counter(walk(walked, 1000, lambda index: alike if index < 5 else MIXED))
    lowered, full = sum(seen[index] for index in range(5)), sum(seen[index] for index in range(5, 10))
    assert lowered / full == pytest.approx(1 / 8, rel=0.2)
    assert min(seen[index] for index in range(5)) > 0
    assert walked.downweighted == 0.5


def test_one_visit_with_differences_gives_the_full_weight_back() -> None:
    walked = difficulty(2)
    walk(walked, 20, lambda index: SOLVED if index == 0 else MIXED, per_step=1)
    assert walked.downweighted == 0.5
    walk(walked, 60, lambda _: MIXED, per_step=1)
    assert walked.downweighted == 0


def test_where_all_problems_are_solved_the_steps_still_get_their_problems() -> None:
    assert len(walk(difficulty(3), 200, lambda _: SOLVED, per_step=4)) == 800


def test_a_group_that_could_not_be_scored_tells_nothing() -> None:
    walked = difficulty(2)
    walk(walked, 5, lambda _: [None, 1.0])
    assert walked.downweighted == 0


def test_choosing_changes_nothing_before_the_step_is_recorded() -> None:
    walked = difficulty()
    assert walked.choose(3) == walked.choose(3)


def test_a_walk_goes_on_from_its_state_as_json_as_if_never_interrupted() -> None:
    def scores(index: int) -> Group:
        return SOLVED if index % 3 else MIXED

    whole, first, second = difficulty(), difficulty(), difficulty()
    walk(whole, 40, scores)
    walk(first, 40, scores)
    second.restore(json.loads(json.dumps(first.state())), place=0)
    assert walk(second, 40, scores) == walk(whole, 40, scores)


def test_a_checkpoint_without_a_state_goes_on_behind_the_problems_it_has_seen() -> None:
    walked = difficulty()
    walked.restore(None, place=6 * 3)
    assert walked.choose(3).problems == step_problems(10, 3, 7, 4)


def test_what_is_known_of_problems_that_are_gone_is_forgotten() -> None:
    walked = difficulty(4)
    walked.restore({"place": 0, "streaks": {"p1": 2, "gone": 3}}, 0)
    assert walked.downweighted == 0.25
