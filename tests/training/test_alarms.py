from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import resolve
from aapo_desk.hardware import Machine
from aapo_desk.models.policy import Policy
from aapo_desk.store import RunReader, RunWriter, StepRecord, create_run
from aapo_desk.training.alarms import Watch
from tests.policies import load_tiny

IDLE = Machine(cores=2, cpu_percent=1.0, memory_total=8192, memory_available=6000, gpus=())
GOOD = {
    "reward": 0.4, "truncated": 0.1, "teaching": 0.6, "margin_low_share": 0.1, "margin_high_share": 0.3, "loss": -0.1,
    "grad_norm": 0.6, "update_norm": 0.1, "entropy": 0.4, "logp_gap": 1e-6, "unscorable": 0.0,
}  # fmt: skip
CUT = GOOD | {"truncated": 0.9}


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return load_tiny(tiny_model)


@pytest.fixture
def writer(desk_home: Path) -> RunWriter:
    return RunWriter(create_run(resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}})))


def train(watch: Watch, writer: RunWriter, steps: range, metrics: dict[str, float], machine: Machine = IDLE) -> None:
    for step in steps:
        writer.write_step(StepRecord(step, 1000.0 + step, metrics, {}, []))
        watch.step(step, metrics, machine)


def begun(writer: RunWriter, policy: Policy) -> Watch:
    return Watch(writer.run.read_config(), policy, writer)


def resumed(writer: RunWriter, policy: Policy, step: int) -> Watch:
    writer.rewind(step)
    writer.write_event("resumed", step, from_step=step)
    watch = begun(writer, policy)
    watch.resume({})
    return watch


def told(writer: RunWriter) -> list[tuple[str, int, Any]]:
    events = RunReader(writer.run).poll().events
    return [(event.kind, event.step, event.data["kind"]) for event in events if event.kind.startswith("alarm")]


def test_an_alarm_is_told_once_and_so_is_its_end(writer: RunWriter, policy: Policy) -> None:
    watch = begun(writer, policy)
    train(watch, writer, range(1, 21), CUT)
    assert told(writer) == [("alarm", 13, "truncation")]
    train(watch, writer, range(21, 41), GOOD)
    assert told(writer) == [("alarm", 13, "truncation"), ("alarm_over", 28, "truncation")]
    assert watch.alarms == []


@pytest.mark.parametrize("step", [15, 12, 0])
def test_a_resumed_run_does_not_tell_again_what_stands(writer: RunWriter, policy: Policy, step: int) -> None:
    train(begun(writer, policy), writer, range(1, 19), CUT)
    watch = resumed(writer, policy, step)
    train(watch, writer, range(step + 1, 40), CUT)
    assert told(writer) == [("alarm", 13, "truncation")]
    train(watch, writer, range(40, 60), GOOD)
    assert [kind for kind, _, _ in told(writer)] == ["alarm", "alarm_over"]


def test_a_resumed_run_judges_by_the_steps_before_it(writer: RunWriter, policy: Policy) -> None:
    train(begun(writer, policy), writer, range(1, 101), GOOD)
    watch = resumed(writer, policy, 100)
    train(watch, writer, range(101, 112), CUT)
    assert told(writer) == [("alarm", 106, "truncation")]


def test_a_rising_reward_is_held_against_the_evaluation_also_after_a_resume(writer: RunWriter, policy: Policy) -> None:
    train(begun(writer, policy), writer, range(1, 96), GOOD | {"reward": 0.1})
    watch = resumed(writer, policy, 90)
    train(watch, writer, range(91, 101), GOOD | {"reward": 0.6})
    assert told(writer) == []
    watch.evaluation(100, {0: {"difference": None}, 100: {"difference": {"mean": 0.0}}})
    assert told(writer) == [("alarm", 100, "evaluation_flat")]


def test_an_adapter_that_still_changes_nothing_is_told_until_it_does(
    writer: RunWriter, tiny_model: Path, policy: Policy
) -> None:
    fresh = load_tiny(tiny_model, trained=False)
    watch = begun(writer, fresh)
    train(watch, writer, range(1, 15), GOOD)
    assert told(writer) == [("alarm", 13, "adapter_still")]
    for name, value in fresh.adapter_parameters().items():
        if "lora_B" in name:
            value.data += 0.01
    train(watch, writer, range(15, 17), GOOD)
    assert told(writer)[1:] == [("alarm_over", 15, "adapter_still")]


def test_a_machine_whose_memory_is_nearly_full_is_told(writer: RunWriter, policy: Policy) -> None:
    full = Machine(cores=2, cpu_percent=99.0, memory_total=8192, memory_available=300, gpus=())
    watch = begun(writer, policy)
    train(watch, writer, range(1, 6), GOOD, full)
    assert told(writer) == [("alarm", 4, "memory")]
    assert "7.7 of 8.0 GB of this machine's memory" in watch.alarms[0].message
