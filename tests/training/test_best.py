"""When a run is evaluated, and that its best checkpoint is kept, however old it is."""

from __future__ import annotations

from typing import Any

import pytest

from aapo_desk.config import resolve
from aapo_desk.evaluation import held_out
from aapo_desk.store import RunReader, create_run, list_checkpoints
from aapo_desk.training import trainer
from tests.training.in_process import train

pytestmark = pytest.mark.usefixtures("desk_home")


def marked(monkeypatch: pytest.MonkeyPatch, marks: list[tuple[float, float]]) -> None:
    """Let successive evaluations return these greedy and sampled accuracies."""
    evaluate, rest = held_out.evaluate, iter(marks)

    def told(*given: Any, **named: Any) -> dict[str, Any]:
        data = evaluate(*given, **named)
        data["greedy"]["accuracy"], data["sampled"]["accuracy"] = next(rest)
        return data

    monkeypatch.setattr(trainer, "evaluate", told)


@pytest.mark.parametrize(
    ("marks", "best"),
    [
        ([(0.2, 0.9), (0.6, 0.1), (0.1, 0.9), (0.3, 0.9)], 2),  # the greedy accuracy decides
        ([(0.6, 0.4), (0.6, 0.5), (0.6, 0.3), (0.1, 0.9)], 2),  # then the sampled one
        ([(0.6, 0.4), (0.6, 0.5), (0.6, 0.5), (0.1, 0.9)], 3),  # then the later one
    ],
)
def test_the_best_checkpoint_outlives_newer_ones(
    tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, marks: list[tuple[float, float]], best: int
) -> None:
    marked(monkeypatch, [(0.9, 0.9), *marks])  # the base's evaluation has no checkpoint
    sets = {"run.steps": 4, "run.keep_checkpoints": 1, "evaluation.every": 1, "evaluation.problems": 2}
    run = train(create_run(resolve(tiny_config, sets)))
    assert [one.step for one in list_checkpoints(run.checkpoints)] == [4, best]
    assert [event.data["best"] for event in RunReader(run).poll().events if event.kind == "finished"] == [best]


def test_it_is_evaluated_before_after_and_every_so_many_steps(tiny_config: dict[str, Any]) -> None:
    sets = {"run.steps": 5, "run.checkpoint_every": 9, "run.keep_checkpoints": 9}
    sets |= {"evaluation.every": 2, "evaluation.problems": 2}
    run = train(create_run(resolve(tiny_config, sets)))
    assert [step for step, _, _ in RunReader(run).poll().evaluations] == [0, 2, 4, 5]
    assert [one.step for one in list_checkpoints(run.checkpoints)] == [5, 4, 2]  # each has its checkpoint
