"""A loaded policy answers problems: by whom, by what draws, in which batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aapo_desk.config import RewardConfig
from aapo_desk.evaluation import batches
from aapo_desk.evaluation.asking import ask
from aapo_desk.evaluation.batches import Asked, answered, evaluate
from aapo_desk.evaluation.held_out import judged_by
from aapo_desk.evaluation.results import EvaluationError, Line
from aapo_desk.models.policy import Policy
from aapo_desk.rewards import RewardPool
from aapo_desk.rollout import Row, Sampling
from aapo_desk.tasks import Problem
from tests.policies import load_tiny

PROBLEMS = [Problem(f"train-{a}", f"What is {a} + 1?", str(a + 1)) for a in range(9)]
PROMPTS = [[5, 6, 7, 20 + a] + [8] * (a % 3) for a in range(9)]
GREEDY = Asked(PROBLEMS, PROMPTS, max_new_tokens=6)
SAMPLED = replace(GREEDY, samples=3, sampling=Sampling(0.9), seed=7)


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    """Its adapter is random, so that base and tuned answer otherwise."""
    return load_tiny(tiny_model)


@pytest.fixture(scope="module")
def pool() -> Iterator[RewardPool]:
    with RewardPool(judged_by([RewardConfig(name="format", options={"pattern": "[a-h]"})])) as pool:
        yield pool


def by_id(lines: Sequence[Line]) -> dict[str, Line]:
    return {line["source_id"]: line for line in lines}


def test_base_and_tuned_answer_each_problem_and_the_summary_counts_both(policy: Policy, pool: RewardPool) -> None:
    told: list[float] = []
    summary, lines = evaluate(policy, GREEDY, pool, batch_rows=8, progress=told.append)
    assert sorted(by_id(lines)) == [problem.id for problem in PROBLEMS]
    assert [line["prompt_tokens"] for line in lines] == sorted(map(len, PROMPTS), reverse=True)
    assert [line["base"][0]["completion"] for line in lines] != [line["tuned"][0]["completion"] for line in lines]
    assert (summary["base"]["answers"], summary["difference"]["problems"]) == (9, 9)
    assert told[-1] == 1.0
    assert told == sorted(told)


def test_one_side_alone_answers_as_beside_the_other(policy: Policy, pool: RewardPool) -> None:
    _, both = evaluate(policy, GREEDY, pool)
    for side in ("base", "tuned"):
        summary, alone = evaluate(policy, replace(GREEDY, sides=(side,)), pool)
        assert summary.keys() == {side}
        assert [line[side] for line in alone] == [line[side] for line in both]


def test_samples_are_drawn_for_each_problem_whatever_the_batch_and_the_other_problems(
    policy: Policy, pool: RewardPool
) -> None:
    _, large = evaluate(policy, SAMPLED, pool, batch_rows=64)
    answers = [[answer["completion"] for answer in line["tuned"]] for line in large]
    assert all(len(one) == 3 for one in answers)
    assert any(len(set(one)) == 3 for one in answers)
    _, small = evaluate(policy, SAMPLED, pool, batch_rows=4)  # less than a problem's rows
    assert small == large
    some = replace(SAMPLED, problems=PROBLEMS[5:2:-1], prompts=PROMPTS[5:2:-1])
    _, fewer = evaluate(policy, some, pool)
    assert by_id(fewer) == {name: line for name, line in by_id(large).items() if name in by_id(fewer)}
    _, other = evaluate(policy, replace(SAMPLED, seed=8), pool)
    assert other != large


def test_what_was_answered_before_is_not_asked_again(policy: Policy, pool: RewardPool) -> None:
    whole = list(answered(policy, GREEDY, pool, batch_rows=8))
    assert list(map(len, whole)) == [4, 4, 1]
    assert list(answered(policy, GREEDY, pool, batch_rows=8, done=4)) == whole[1:]
    assert list(answered(policy, GREEDY, pool, batch_rows=8, done=9)) == []


def test_where_memory_ends_batches_become_smaller_and_it_is_told(
    policy: Policy, pool: RewardPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scarce(policy: Any, problems: Any, prompts: Any, rows: Sequence[Row], *rest: Any) -> Any:
        if len(rows) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ask(policy, problems, prompts, rows, *rest)

    plenty = [line for batch in answered(policy, GREEDY, pool, batch_rows=16) for line in batch]
    monkeypatch.setattr(batches, "ask", scarce)
    changes: list[dict[str, int]] = []
    done = list(answered(policy, GREEDY, pool, batch_rows=16, changed=changes.append))
    assert changes == [{"batch_rows": 8}, {"batch_rows": 4}]
    assert list(map(len, done)) == [2, 2, 2, 2, 1]
    assert [line for batch in done for line in batch] == plenty
    monkeypatch.setattr(batches, "ask", lambda *_: scarce(None, None, None, [Row(0)] * 5))
    with pytest.raises(EvaluationError, match="ran out of memory with a single answer"):
        next(answered(policy, GREEDY, pool, batch_rows=2))
