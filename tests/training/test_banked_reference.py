"""Runs with a reference cache: what a step costs and records, and that a kill changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import resolve
from aapo_desk.rollout import BANKED
from aapo_desk.store import RunDirectory, RunReader, RunWriter, Sample, create_run
from aapo_desk.training.context import TrainContext
from aapo_desk.training.control import Control
from aapo_desk.training.setup import prepared
from aapo_desk.training.step import StepResult, run_step
from tests.training.in_process import killed
from tests.training.in_process import train as finish
from tests.training.test_run import adapter, metrics_without_clocks, new_run, trainer, wait_for, written_step

STEPS, PROMPTS, GROUP = 8, 2, 4
ROWS = PROMPTS * GROUP


@pytest.fixture
def config(tiny_config: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Four problems, two per step: from the third step on, each is in the cache."""
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"problem": f"{n} + 2 =", "answer": str(n + 2)}) + "\n" for n in range(4)))
    return tiny_config | {
        "model": tiny_config["model"] | {"quantization": "nf4"},
        "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
        "task": {"source": f"file:{problems}", "held_out": 0},
        "algorithm": {"reference": "bank"},
        "run": {"steps": STEPS, "checkpoint_every": 3},
        "evaluation": {"problems": 0},
    }


@contextmanager
def loaded(config: dict[str, Any], name: str) -> Iterator[TrainContext]:
    """Everything that a step needs, as the trainer loads it."""
    run = create_run(resolve(config), name)
    store = RunWriter(run)
    try:
        with prepared(run.read_config(), store, Control(run, STEPS)) as ready:
            yield ready.context
    finally:
        store.close()


def take(parts: TrainContext, step: int) -> tuple[StepResult, list[int]]:
    """Run a step; also return how many rows went through the model in each pass while sampling."""
    rows: list[int] = []
    phases = ["rollout"]
    embeddings = parts.policy.causal.get_input_embeddings()
    hook = embeddings.register_forward_hook(
        lambda _module, inputs, _output: rows.append(len(inputs[0])) if phases[-1] == "rollout" else None
    )
    try:
        return run_step(parts, step, lambda phase, _share: phases.append(phase)), rows
    finally:
        hook.remove()


def sides(result: StepResult) -> tuple[list[Sample], list[Sample]]:
    samples = result.record.samples
    return [one for one in samples if not one.is_reference], [one for one in samples if one.is_reference]


def tokens_sampled(result: StepResult) -> int:
    return round(result.record.metrics["tokens_per_second"] * result.record.metrics["seconds_rollout"])


def tokens(samples: list[Sample]) -> int:
    return sum(sample.tokens for sample in samples)


def by_problem(samples: list[Sample]) -> dict[str, list[tuple[str, float | None]]]:
    groups: dict[str, list[tuple[str, float | None]]] = {}
    for sample in samples:
        groups.setdefault(sample.prompt_id, []).append((sample.completion, sample.reward))
    return groups


@pytest.mark.usefixtures("desk_home")
def test_once_its_prompts_are_banked_a_step_samples_the_policy_alone(config: dict[str, Any]) -> None:
    with loaded(config, "banked") as parts:
        first, rows = take(parts, 1)
        assert (rows[:2], rows.count(PROMPTS)) == ([PROMPTS, ROWS], 2)  # the policy's batch, then the reference's
        assert tokens_sampled(first) == tokens(first.record.samples)
        take(parts, 2)
        for step in (3, 4):
            again, rows = take(parts, step)
            assert rows[:2] == [PROMPTS, ROWS]
            assert len(rows) <= 6
            assert tokens_sampled(again) == tokens(sides(again)[0])
    with loaded(config, "another run, the same bank") as parts:
        _, rows = take(parts, 1)
        assert len(rows) <= 6


@pytest.mark.usefixtures("desk_home")
def test_the_banked_rewards_are_recorded_as_fresh_ones_are(config: dict[str, Any]) -> None:
    with loaded(config, "banked") as parts:
        results = [take(parts, step)[0] for step in range(1, 5)]
    met: dict[str, list[tuple[str, float | None]]] = {}
    for result in results:
        policy, reference = sides(result)
        assert [sample.row for sample in policy] == [sample.row for sample in reference] == list(range(ROWS))
        assert [sample.prompt_id for sample in policy] == [sample.prompt_id for sample in reference]
        rewards = [sample.reward for sample in reference]
        assert result.record.metrics["reference_reward"] == pytest.approx(sum(r or 0.0 for r in rewards) / ROWS)
        assert sum(result.record.histograms["reference_reward"].counts) == ROWS
        for pair, other in zip(policy, reference, strict=True):
            margin = min(0.28, max(-0.2, (pair.reward or 0.0) - (other.reward or 0.0)))
            assert pair.margin == pytest.approx(margin)
        for problem, group in by_problem(reference).items():
            assert met.setdefault(problem, group) == group
    assert len(met) == 4


@pytest.mark.usefixtures("desk_home")
def test_what_could_not_be_scored_is_told_once_and_stays_unscorable(config: dict[str, Any], tmp_path: Path) -> None:
    """The policy starts equal to its reference, and every completion of one problem is unscorable."""
    rewards = tmp_path / "own.py"
    rewards.write_text("def score(completion, answer):\n    return None if answer == '3' else float(len(completion))\n")
    own = config | {"rewards": [{"name": f"{rewards}:score"}]}
    with loaded(own, "unscorable") as parts:
        results = [take(parts, step)[0] for step in range(1, 5)]
    told = [(result.record.metrics["unscorable"], len(result.unscorable)) for result in results]
    assert sorted(told[:2]) == [(0.0, 0), (2 * GROUP, 2 * GROUP)]
    assert sorted(told[2:]) == [(0.0, 0), (GROUP, GROUP)]
    null = [sample for result in results for sample in sides(result)[1] if sample.reward is None]
    assert len(null) == 2 * GROUP
    assert {sample.answer for sample in null} == {"3"}


@pytest.mark.usefixtures("desk_home")
def test_a_bank_that_cannot_be_written_is_a_notice_and_the_run_goes_on(config: dict[str, Any], desk_home: Path) -> None:
    desk_home.mkdir()
    (desk_home / "bank").write_text("a file where the folder should be")
    run = new_run(config | {"run": {"steps": 4}}, "no bank")
    finish(run)
    messages = [event.data["message"] for event in RunReader(run).poll().events if event.kind == "notice"]
    assert messages[0] == BANKED
    assert "cannot be written" in messages[1]
    assert len(messages) == 2
    assert written_step(run) == 4


@pytest.mark.slow
def test_a_killed_run_ends_as_an_undisturbed_one_whatever_its_bank_held(
    desk_home: Path, config: dict[str, Any]
) -> None:
    undisturbed = new_run(config, "undisturbed")
    finish(undisturbed)
    with_all = new_run(config, "its bank held everything")
    finish(killed(with_all, 5))
    shutil.rmtree(desk_home / "bank")
    finish(new_run(config | {"run": config["run"] | {"seed": 5, "steps": 2}}, "another seed"))
    # Killed between checkpoints, so that the cache already has the groups of steps that are repeated.
    with_its_own = new_run(config, "its bank held what it had left there")
    with trainer(with_its_own) as process:  # in a process of its own
        wait_for(with_its_own, lambda: written_step(with_its_own) >= 5)
        os.killpg(process.pid, signal.SIGKILL)
    finish(with_its_own)
    for run in (with_all, with_its_own):
        assert adapter(run, STEPS) == adapter(undisturbed, STEPS)
        assert metrics_without_clocks(run) == metrics_without_clocks(undisturbed)
        assert stored(run) == stored(undisturbed)


def stored(run: RunDirectory) -> list[list[Sample]]:
    reader = RunReader(run)
    return [reader.samples(step) for step in range(1, STEPS + 1)]


def test_a_banked_run_says_that_it_is_one_and_a_run_without_reference_does_not(
    desk_home: Path, config: dict[str, Any]
) -> None:
    grpo = new_run(config | {"algorithm": {"name": "grpo"}, "run": {"steps": 1}}, "grpo")
    finish(grpo)
    assert [event.kind for event in RunReader(grpo).poll().events] == ["probe", "started", "checkpoint", "finished"]
    assert not any(sample.is_reference for sample in RunReader(grpo).samples(1))
    assert not (desk_home / "bank").exists()
    aapo = new_run(config | {"run": {"steps": 1}}, "aapo")
    finish(aapo)
    events = RunReader(aapo).poll().events
    assert [event.kind for event in events] == ["probe", "started", "notice", "checkpoint", "finished"]
    assert events[2].data["message"] == BANKED
