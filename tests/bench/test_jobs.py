"""Each measurement on the tiny model, in this process."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch.nn import functional

from aapo_desk.bench import arithmetic
from aapo_desk.bench.bed import context_of
from aapo_desk.bench.jobs import Job
from aapo_desk.bench.peers import REWARDS
from aapo_desk.bench.updates import made_up, update_once
from aapo_desk.bench.worker import measure
from aapo_desk.config import resolve

pytestmark = pytest.mark.usefixtures("desk_home")


@pytest.fixture
def data(tiny_config: dict[str, Any]) -> dict[str, Any]:
    return tiny_config | {"rewards": REWARDS, "evaluation": {"problems": 0}}


def job(worker: str, data: dict[str, Any], algorithm: str = "aapo", **rest: Any) -> Job:
    return Job(worker, resolve(data, {"algorithm.name": algorithm}), steps=2, **rest)


@pytest.mark.parametrize("algorithm", ["aapo", "grpo"])
def test_a_step_runs_to_the_longest_length_and_every_row_teaches(data: dict[str, Any], algorithm: str) -> None:
    measured = measure(job("steps", data, algorithm))
    assert len(measured.steps) == 2
    for step in measured.steps:
        assert step["completion_tokens"] == 6
        assert step["teaching"] == 1
        phases = [step[f"seconds_{phase}"] for phase in ("rollout", "reward", "update")]
        assert min(phases) > 0
        assert step["seconds"] >= sum(phases)
    assert set(measured.peaks) == {"loading", "rollout", "reward", "update"}
    assert min(measured.peaks.values()) > 0
    assert measured.about["shape"]["group_size"] == 4
    assert measured.about["versions"]["torch"]
    assert measured.about["choices"]["shadow_weights"] == 1


def test_generate_makes_completions_of_the_longest_length(data: dict[str, Any]) -> None:
    measured = measure(job("generate", data))
    assert [step["completion_tokens"] for step in measured.steps] == [6, 6]
    assert min(step["seconds"] for step in measured.steps) > 0


def test_an_update_alone_says_what_memory_it_adds(data: dict[str, Any]) -> None:
    measured = measure(job("updates", data, "grpo", choices={"token_budget": 64}))
    assert min(step["seconds"] for step in measured.steps) > 0
    assert all(step["added_mb"] >= 0 for step in measured.steps)
    assert measured.peak_mb >= measured.peaks["update"]


def test_the_update_is_held_against_its_matmuls(data: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(arithmetic.SQUARE, "cpu", 64)
    for step in measure(job("arithmetic", data, "grpo")).steps:
        at_square = step["flops"] / step["square_flops_per_second"]
        at_shapes = step["flops"] / step["shapes_flops_per_second"]
        assert step["update_to_matmul"] == pytest.approx(step["seconds"] / at_square)
        assert step["update_to_shapes"] == pytest.approx(step["seconds"] / at_shapes)


@pytest.mark.parametrize("shared", [0, 1])
def test_an_update_by_4_bit_or_shadow_weights_is_counted_as_the_plain_one(data: dict[str, Any], shared: int) -> None:
    counts = []
    for quantization, shadow in (("none", False), ("nf4", False), ("nf4", True)):
        overrides = {"model.quantization": quantization, "rollout.weights": "adapter", "algorithm.name": "grpo"}
        with context_of(Job("arithmetic", resolve(data, overrides), {"share_prompts": shared})) as parts:
            if shadow:
                parts.policy.use_shadow()
            rollout = made_up(parts)
            counts.append(arithmetic.count(partial(update_once, parts, rollout)))
    assert counts[0] == counts[1]
    # By packed weights, rows are padded to fewer lengths.
    assert counts[0][0] <= counts[2][0] < counts[0][0] * (1 + 1 / 16)
    assert sum(counts[0][1].values()) == sum(counts[2][1].values())
    assert counts[0][0] > sum(arithmetic.flop(shape) * number for shape, number in counts[0][1].items()) > 0


def test_forward_and_backward_are_counted_and_so_is_attention() -> None:
    rows, heads, tokens, size = 2, 3, 5, 8
    query = torch.randn(rows, heads, tokens, size, requires_grad=True)
    weight = torch.randn(size, 4, requires_grad=True)

    def work() -> None:
        (functional.scaled_dot_product_attention(query, query, query, is_causal=True) @ weight).sum().backward()

    flops, shapes = arithmetic.count(work)
    product = 2 * rows * heads * tokens * size * 4
    attention = 2 * rows * heads * tokens * tokens * size
    # Two products forward in attention, five backward, which begins with the scores again.
    assert flops == 3 * product + 7 * attention
    assert sum(arithmetic.flop(shape) * number for shape, number in shapes.items()) == 3 * product


@pytest.mark.skipif(find_spec("trl") is None, reason="TRL is not installed (the extra: bench)")
@pytest.mark.filterwarnings("ignore")  # what the peer warns of is the peer's to mend
@pytest.mark.parametrize("as_it_comes", [False, True])
def test_trl_takes_the_same_steps(data: dict[str, Any], as_it_comes: bool) -> None:
    options = {"micro_batch": 4, "checkpointing": False, "as_it_comes": as_it_comes}
    measured = measure(job("trl_steps", data, "grpo", options=options))
    assert [step["completion_tokens"] for step in measured.steps] == [6, 6]
    assert min(step["seconds"] for step in measured.steps) > 0
    ours = measure(job("steps", data, "grpo"))
    assert {**ours.about, "choices": 0} == {**measured.about, "choices": 0}
