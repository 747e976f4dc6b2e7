"""Each algorithm on a tiny model: what its step computes, samples and records, and that a resume changes nothing."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aapo_desk import checkpoint
from aapo_desk.algorithms import build
from aapo_desk.config import METHODS, resolve
from aapo_desk.rewards import RewardError, RewardPool
from aapo_desk.rollout import Side
from aapo_desk.store import RunWriter, create_run
from aapo_desk.tasks.order import step_problems
from aapo_desk.training.context import TrainContext
from aapo_desk.training.control import Control
from aapo_desk.training.rollouts import collect_rollouts
from aapo_desk.training.setup import prepared
from aapo_desk.training.step import StepResult, run_step
from tests.training.in_process import train

PROMPTS, GROUP = 3, 4
ROWS = PROMPTS * GROUP
BASE: dict[str, Any] = {
    "lora": {"r": 4, "alpha": 8},
    "task": {"source": "arithmetic", "held_out": 0, "max_prompt_tokens": 200},
    "rewards": [{"name": "format", "options": {"pattern": "[a-m]"}}],
    "rollout": {"prompts_per_step": PROMPTS, "group_size": GROUP, "max_new_tokens": 6},
    "optimizer": {"learning_rate": 1e-3},
    "evaluation": {"problems": 0},
}


@contextmanager
def loaded(config: dict[str, Any]) -> Iterator[TrainContext]:
    run = create_run(resolve(config), None)
    store = RunWriter(run)
    try:
        with prepared(run.read_config(), store, Control(run, 9), probed=False) as ready:
            yield ready.context
    finally:
        store.close()


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> dict[str, Any]:
    return BASE | {"model": {"id": str(tiny_model), "device": "cpu", "quantization": "none"}}


@pytest.fixture(scope="module")
def everything(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainContext]:
    """The context, loaded once for all tests, with an adapter that differs from the base."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AAPO_DESK_HOME", str(tmp_path_factory.mktemp("home")))
        with loaded(config) as parts:
            yield parts


@pytest.fixture
def parts(everything: TrainContext) -> Iterator[TrainContext]:
    """The same context for one test, with whole steps in one micro-batch; the adapter is restored after the test."""
    weights = everything.policy.adapter_parameters()
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    generator = torch.Generator().manual_seed(2)
    for name, weight in weights.items():
        if "lora_B" in name:
            weight.data = 0.1 * torch.randn(weight.shape, generator=generator)
    yield replace(everything, choices=everything.choices | {"token_budget": 100_000, "share_prompts": 0})
    for name, weight in weights.items():
        weight.data, weight.grad = before[name], None


def with_algorithm(parts: TrainContext, name: str, updates: int = 1, **options: Any) -> TrainContext:
    section = {"algorithm": {"name": name, "updates_per_rollout": updates, "options": options}}
    config = resolve(parts.config.model_dump(exclude={"algorithm"}) | section)
    optimizer = torch.optim.AdamW(parts.policy.adapter_parameters().values(), weight_decay=0.0)
    return replace(parts, config=config, algorithm=build(config.algorithm, config.rollout), optimizer=optimizer)


@dataclass
class Counts:
    """Counts of what went through the model. ``sampled`` is the largest number of rows decoded at once."""

    sampled: int = 0
    reference: int = 0
    before: int = 0
    update: int = 0
    phase: str = field(default="rollout", repr=False)


@contextmanager
def counting(parts: TrainContext, counts: Counts) -> Iterator[None]:
    layer = next(module for module in parts.policy.model.modules() if "default" in getattr(module, "lora_B", {}))

    def count(_module: Any, inputs: Any, _output: Any) -> None:
        if counts.phase == "rollout":
            counts.sampled = max(counts.sampled, len(inputs[0]))
        elif torch.is_grad_enabled():
            counts.update += 1
        elif layer.disable_adapters:
            counts.reference += 1
        else:
            counts.before += 1

    hook = parts.policy.causal.get_input_embeddings().register_forward_hook(count)
    try:
        yield
    finally:
        hook.remove()


def counted(parts: TrainContext, step: int = 1) -> tuple[StepResult, Counts]:
    counts = Counts()
    with counting(parts, counts):
        result = run_step(parts, step, lambda phase, _share: setattr(counts, "phase", phase))
    return result, counts


# Sampled rows; passes over the whole step: the reference's and the policy's without gradient, and with gradient.
COMPUTED: list[tuple[str, dict[str, Any], tuple[int, int, int, int]]] = [
    ("aapo", {}, (2 * ROWS, 0, 0, 1)),
    ("grpo", {}, (ROWS, 0, 0, 1)),
    ("grpo", {"beta": 0.1}, (ROWS, 1, 1, 1)),
    ("grpo", {"updates": 3}, (ROWS, 0, 3, 3)),
    ("grpo", {"updates": 3, "beta": 0.1}, (ROWS, 1, 3, 3)),
    ("dr_grpo", {}, (ROWS, 0, 0, 1)),
    ("dr_grpo", {"beta": 0.1}, (ROWS, 1, 1, 1)),
    ("dr_grpo", {"updates": 2}, (ROWS, 0, 2, 2)),
    ("dapo", {"max_refills": 0}, (ROWS, 0, 0, 1)),
    ("dapo", {"max_refills": 0, "updates": 2}, (ROWS, 0, 2, 2)),
    ("gpg", {}, (ROWS, 0, 0, 1)),
    ("gpg", {"beta": 0.1}, (ROWS, 1, 1, 1)),
    ("rloo", {}, (ROWS, 0, 0, 1)),
    ("rloo", {"beta": 0.1}, (ROWS, 1, 1, 1)),
    ("rloo", {"variant": "ppo_seq"}, (ROWS, 0, 0, 1)),
    ("rloo", {"variant": "ppo_seq", "updates": 2}, (ROWS, 0, 2, 2)),
    ("loop", {}, (ROWS, 0, 0, 1)),
    ("loop", {"ratio": "trajectory", "updates": 2}, (ROWS, 0, 2, 2)),
    ("disco", {}, (ROWS, 0, 1, 1)),
    ("disco", {"soft_maximum": False}, (ROWS, 0, 0, 1)),
    ("disco", {"score": "lratio"}, (ROWS, 0, 0, 1)),
    ("disco", {"score": "lratio", "updates": 2}, (ROWS, 0, 2, 2)),
    ("p3o", {}, (ROWS, 1, 1, 1)),
    ("p3o", {"variant": "v1", "updates": 2}, (ROWS, 1, 2, 2)),
    ("p3o", {"beta": 0}, (ROWS, 0, 0, 1)),
    ("apa", {}, (ROWS, 1, 1, 1)),
    ("apa", {"updates": 2}, (ROWS, 1, 2, 2)),
]


def test_the_table_has_every_algorithm() -> None:
    assert {name for name, _, _ in COMPUTED} == METHODS.keys()


@pytest.mark.parametrize(("name", "settings", "expected"), COMPUTED, ids=lambda value: str(value))
def test_a_step_computes_and_samples_what_its_algorithm_needs_and_learns(
    parts: TrainContext, name: str, settings: dict[str, Any], expected: tuple[int, int, int, int]
) -> None:
    before = [weight.detach().clone() for weight in parts.policy.adapter_parameters().values()]
    result, counts = counted(with_algorithm(parts, name, **settings))
    assert (counts.sampled, counts.reference, counts.before, counts.update) == expected

    metrics = result.record.metrics
    assert result.update.applied
    assert 0 < metrics["grad_norm"] < math.inf
    assert 0 < metrics["update_norm"] < math.inf
    assert math.isfinite(metrics["loss"])
    assert metrics["teaching"] > 0
    moved = zip(before, parts.policy.adapter_parameters().values(), strict=True)
    assert any(not torch.equal(old, new) for old, new in moved)


@pytest.mark.parametrize("name", METHODS)
def test_what_an_algorithm_does_not_have_is_recorded_as_absent_not_as_zero(parts: TrainContext, name: str) -> None:
    chosen = with_algorithm(parts, name)
    record = run_step(chosen, 1, lambda _phase, _share: None).record
    margin, advantage = chosen.algorithm.needs_reference_rewards, chosen.algorithm.has_advantages
    known = {
        "margin": margin,
        "margin_low_share": margin,
        "margin_high_share": margin,
        "reference_reward": margin,
        "advantage_abs": advantage,
        "teaching_group": advantage,
        "teaching": True,
    }
    assert {key: math.isfinite(record.metrics[key]) for key in known} == known
    there = {"margin": margin, "reference_reward": margin, "group_advantage": advantage, "advantage": advantage}
    assert {key: key in record.histograms for key in there} == there
    policy = [sample for sample in record.samples if not sample.is_reference]
    assert {sample.margin is not None for sample in policy} == {margin}
    assert {sample.advantage is not None for sample in policy} == {advantage}
    assert any(sample.is_reference for sample in record.samples) == margin


@pytest.mark.parametrize(
    ("name", "settings"),
    [("grpo", {"updates": 3, "beta": 0.1}), ("dapo", {"updates": 2, "max_refills": 2}), ("p3o", {"updates": 2})],
)
def test_going_on_from_a_checkpoint_ends_in_the_same_bits(
    parts: TrainContext, tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    chosen = with_algorithm(parts, name, **settings)
    run_step(chosen, 1, lambda _phase, _share: None)
    kept = checkpoint.save(tmp_path, 1, chosen.policy, chosen.optimizer, chosen.choices)
    whole = run_step(chosen, 2, lambda _phase, _share: None)
    expected = [weight.detach().clone() for weight in chosen.policy.adapter_parameters().values()]

    again = with_algorithm(parts, name, **settings)  # with a fresh optimiser
    checkpoint.restore(kept, kept.read_state(), again.policy, again.optimizer)
    resumed = run_step(again, 2, lambda _phase, _share: None)
    assert resumed.record.samples == whole.record.samples
    assert resumed.record.metrics["loss"] == whole.record.metrics["loss"]
    for weight, other in zip(again.policy.adapter_parameters().values(), expected, strict=True):
        assert torch.equal(weight, other)


def constant(side: Side) -> list[bool]:
    return [len(set(group.tolist())) == 1 for group in side.rewards]


def test_dapo_puts_other_problems_in_the_place_of_constant_groups(
    desk_home: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    """Half the problems always get 0; for the others a completion of odd length gets 1."""
    (tmp_path / "own.py").write_text(
        "def score(completion, answer):\n    return float(len(completion) % 2) if int(answer) % 2 else 0.0\n"
    )
    (tmp_path / "sums.csv").write_text("problem,answer\n" + "".join(f"{n} + 0 =,{n}\n" for n in range(20)))
    own = config | {
        "task": {"source": f"file:{tmp_path / 'sums.csv'}", "held_out": 0},
        "rewards": [{"name": f"{tmp_path / 'own.py'}:score"}],
        "algorithm": {"name": "dapo", "options": {"max_refills": 4}},
    }
    with loaded(own) as parts:
        zeros = [place for place, problem in enumerate(parts.train) if not int(problem.answer) % 2][:PROMPTS]
        gathered = collect_rollouts(parts, zeros, 1, lambda _phase, _share: None)
        assert constant(gathered.first) == [True] * PROMPTS
        assert sum(constant(gathered.sides.policy)) <= 1
        assert gathered.refilled >= PROMPTS
        assert len(gathered.sides.new) == ROWS + GROUP * gathered.refilled
        assert len(set(gathered.chosen)) == PROMPTS
        for place, problem in enumerate(gathered.chosen):  # each group has its own problem
            if int(parts.train[problem].answer) % 2 == 0:
                assert constant(gathered.sides.policy)[place]
        rows = range(ROWS)
        texts = [parts.policy.tokenizer.decode(gathered.sides.completions.row(row), True) for row in rows]
        assert texts == [one.text for one in gathered.sides.policy.scored]

        order = step_problems(len(parts.train), PROMPTS, 1, 0)
        evenly = collect_rollouts(parts, order, 1, lambda _phase, _share: None)
        assert evenly.refilled > 0
        told = run_step(parts, 1, lambda _phase, _share: None).record.metrics["reward"]
        assert told == float(evenly.first.rewards.mean())  # not of groups selected by their rewards

        nothing = replace(parts, train=[parts.train[place] for place in zeros * 3], prompts=[parts.prompts[0]] * 9)
        bounded = replace(nothing, algorithm=replace(parts.algorithm, max_refills=1))
        result = run_step(bounded, 1, lambda _phase, _share: None)
        assert result.record.metrics["refilled_groups"] == PROMPTS
        assert result.record.metrics["teaching"] == 0
        assert result.update.grad_norm == 0
        assert collect_rollouts(nothing, [0, 1, 2], 1, lambda _phase, _share: None).refilled == 6  # no others left


def test_a_grade_where_a_label_is_wanted_ends_the_run_with_its_reason(parts: TrainContext) -> None:
    chosen = with_algorithm(parts, "disco")
    half = chosen.config.rewards[0].model_copy(update={"weight": 0.5})
    with (
        RewardPool([half]) as pool,
        pytest.raises(RewardError, match=r"disco .* exactly 0 or 1; in step 1 one was 0\.5"),
    ):
        run_step(replace(chosen, pool=pool), 1, lambda _phase, _share: None)


@pytest.mark.parametrize(
    ("algorithm", "said"),
    [
        ("aapo", r"step 1/1  reward \d\.\d{3}  reference \d\.\d{3}  \|advantage\| \d\.\d{3}  grad norm \d"),
        ("grpo", r"step 1/1  reward \d\.\d{3}  \|advantage\| \d\.\d{3}  grad norm \d"),
        ("disco", r"step 1/1  reward \d\.\d{3}  grad norm \d"),
    ],
)
def test_the_log_tells_of_a_step_what_its_method_has(
    config: dict[str, Any], desk_home: Path, caplog: pytest.LogCaptureFixture, algorithm: str, said: str
) -> None:
    with caplog.at_level(logging.INFO):
        train(create_run(resolve(config, {"algorithm.name": algorithm, "run.steps": 1}), algorithm))
    (line,) = [record.message for record in caplog.records if record.message.startswith("step 1/1")]
    assert re.match(said, line)
