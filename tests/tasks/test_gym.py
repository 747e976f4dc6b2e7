"""Problems of reasoning-gym and its own scorers as a reward. What the package does is tested where it is installed."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest

from aapo_desk import launch, tasks
from aapo_desk.config import ConfigError, RewardConfig, TaskConfig, resolve
from aapo_desk.rewards import Completion, RewardPool
from aapo_desk.tasks import Problem, TaskData

installed = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None,
    reason="the package reasoning-gym is not installed: pip install 'aapo-desk[reasoning-gym]'",
)


def load(name: str, seed: int = 0, held_out: int = 4, **options: Any) -> TaskData:
    return tasks.load(TaskConfig(source=f"reasoning-gym:{name}", held_out=held_out, options=options), seed)


def refusal(config: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        launch.check(resolve({"model": {"id": "owner/model"}} | config))
    return str(caught.value)


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    said = refusal({"task": {"source": "reasoning-gym:chain_sum"}, "rewards": [{"name": "reasoning_gym"}]})
    assert said.splitlines() == [
        "task.source = 'reasoning-gym:chain_sum': needs the package reasoning-gym: "
        "pip install 'aapo-desk[reasoning-gym]'",
        "rewards.0.name = 'reasoning_gym': needs the package reasoning-gym: pip install 'aapo-desk[reasoning-gym]'",
    ]


def test_its_reward_is_refused_for_other_problems() -> None:
    said = refusal({"task": {"source": "arithmetic"}, "rewards": [{"name": "math"}, {"name": "reasoning_gym"}]})
    assert "rewards.1.name = 'reasoning_gym': can only score problems from task.source=reasoning-gym:NAME" in said


@installed
def test_problems_are_the_same_for_the_same_seed_and_held_out_ones_are_not_trained_on() -> None:
    data = load("chain_sum", size=20, max_terms=3)
    assert load("chain_sum", size=20, max_terms=3) == data
    assert load("chain_sum", seed=1, size=20, max_terms=3) != data
    assert (len(data.train), len(data.held_out)) == (20, 4)
    assert {p.problem for p in data.train}.isdisjoint(p.problem for p in data.held_out)


@installed
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"source": "reasoning-gym:chain_sun"}, "did you mean reasoning-gym:chain_sum?"),
        ({"source": "reasoning-gym:chain_sum", "options": {"max_term": 3}}, "did you mean task.options.max_terms?"),
        (
            {"source": "reasoning-gym:chain_sum", "options": {"min_terms": 9, "max_terms": 3}},
            "rejects these options: max_terms",
        ),
        ({"source": "reasoning-gym:chain_sum", "options": {"size": 0}}, "must be a whole number of at least 1"),
        ({"source": "reasoning-gym:chain_sum", "options": {"seed": "x"}}, "must be a whole number of at least 0"),
        ({"source": "reasoning-gym:chain_sum", "split": "test"}, "is generated and has no splits"),
        ({"source": "reasoning-gym:composite"}, "rejects these options: Must specify at least one dataset"),
    ],
)
def test_what_makes_no_problems_is_refused_in_a_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tasks.load(TaskConfig(**settings), 0)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def asked(problem: Problem, text: str, recipe: str | None = None) -> Completion:
    made = problem.recipe if recipe is None else recipe
    return Completion(text, problem.problem, problem.answer, 1, 9, False, made)


@installed
def test_the_problems_own_scorer_is_the_reward() -> None:
    """n_queens: any board that solves it is right, and its scorer evaluates text."""
    problem = load("n_queens", size=2, held_out=0, n=4, min_remove=4, max_remove=4).train[0]
    rows = problem.answer.splitlines()
    other = "\n".join(reversed(rows))
    with RewardPool([RewardConfig(name="reasoning_gym")], workers=1) as pool:
        right, also, wrong, harmful, strange, foreign = pool.score(
            [
                asked(problem, f"<think>well</think> <answer>{problem.answer}</answer>"),
                asked(problem, f"<answer>{other}</answer>"),
                asked(problem, "<answer>I do not know</answer>"),
                asked(problem, "<answer>[exit() for _ in 'a']</answer>"),
                asked(problem, problem.answer, recipe=""),
                asked(Problem("x", "another question", "", recipe=problem.recipe), problem.answer),
            ]
        )
    assert (right.total, also.total) == (1.0, 1.0)
    assert wrong.total is not None
    assert wrong.total < 0.1
    assert harmful.total is not None
    assert harmful.total < 0.1
    assert "scores only problems of task.source=reasoning-gym" in (strange.error or "")
    assert "generates a different problem from this recipe" in (foreign.error or "")
