"""Adaptive difficulty in a run: it is labelled and counted, and an interruption changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import resolve
from aapo_desk.store import RunDirectory, RunReader, Sample, create_run
from aapo_desk.tasks.difficulty import ADAPTIVE
from tests.training.in_process import killed, train

STEPS = 7


@pytest.fixture
def config(tiny_config: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Five problems, two per step. For three of them the judging reward is the same for all completions."""
    problems, judge = tmp_path / "problems.csv", tmp_path / "judge.py"
    problems.write_text("problem,answer\n" + "".join(f"{n} + 2 =,{n + 2}\n" for n in range(5)))
    judge.write_text(
        "def alike(completion, answer):\n"
        "    return float(answer in '23') if answer in '234' else len(completion) % 7 / 7\n"
    )
    return tiny_config | {
        "task": {"source": f"file:{problems}", "held_out": 0, "difficulty": "adaptive"},
        "rewards": [{"name": f"{judge}:alike"}, {"name": "format", "options": {"pattern": "[a-m]"}}],
        "run": {"steps": STEPS, "checkpoint_every": 3},
        "evaluation": {"problems": 0},
    }


def samples(run: RunDirectory) -> list[Sample]:
    reader = RunReader(run)
    return [sample for step in range(1, STEPS + 1) for sample in reader.samples(step)]


def adapter(run: RunDirectory) -> bytes:
    return (run.checkpoints / f"step_{STEPS:06d}" / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.usefixtures("desk_home")
def test_a_run_that_was_killed_trains_on_the_same_problems_as_an_undisturbed_one(config: dict[str, Any]) -> None:
    undisturbed = train(create_run(resolve(config), "undisturbed"))
    disturbed = train(killed(create_run(resolve(config), "killed"), 6))
    assert samples(disturbed) == samples(undisturbed)
    assert adapter(disturbed) == adapter(undisturbed)

    delta = RunReader(undisturbed).poll()
    assert ADAPTIVE in [event.data.get("message") for event in delta.events]
    shares = [metrics["downweighted_share"] for _, _, metrics in delta.metrics]
    assert shares[0] == 0
    assert shares[-1] == pytest.approx(3 / 5)
    asked = [sample.answer for sample in samples(undisturbed)[::8]]
    assert sum(answer in "234" for answer in asked[5:]) < sum(answer in "56" for answer in asked[5:])


@pytest.mark.usefixtures("desk_home")
def test_without_it_a_run_says_nothing_of_it(config: dict[str, Any]) -> None:
    config["task"].pop("difficulty")
    run = create_run(resolve(config | {"run": {"steps": 1}}), "even")
    train(run)
    delta = RunReader(run).poll()
    assert not any(event.kind == "notice" for event in delta.events)
    assert "downweighted_share" not in delta.metrics[0][2]
