"""The warm start: what is learned, that nothing else changes, and that an interruption makes no difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from aapo_desk import launch
from aapo_desk.config import ConfigError, resolve
from aapo_desk.models.starting import start_from
from aapo_desk.store import RunDirectory, RunReader, RunWriter, create_run, event_words
from aapo_desk.training.control import Control, StopRequested
from aapo_desk.training.forward import Rollout
from aapo_desk.training.setup import prepared
from aapo_desk.training.trainer import Trainer
from aapo_desk.training.warm_start import supervise
from tests.policies import load_tiny
from tests.training.in_process import train, weights
from tests.training.test_starting import saved

STEPS = 3
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [5, 9]]
COMPLETIONS = [[20, 21, 22, 2], [23, 2], [24, 25, 26, 27, 28, 2]]
EXAMPLES = Rollout(PROMPTS, COMPLETIONS, temperature=1.0, group_size=1)


@pytest.fixture
def config(desk_home: Path, tiny_config: dict[str, Any]) -> dict[str, Any]:
    return tiny_config | {
        "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
        "warm_start": {"solutions": 10, "epochs": 3, "learning_rate": 0.01},
        "run": {"steps": STEPS, "checkpoint_every": 2, "keep_checkpoints": 9},
        "task": tiny_config["task"] | {"held_out": 2},
        "evaluation": {"problems": 2},
        "rewards": [{"name": "format", "options": {"pattern": "[a-m]"}}],  # its workers start quickly
    }


class Killed(BaseException):
    """Ends the trainer at once without saving, as SIGKILL does."""


class Ended(Control):
    """A control that ends the trainer when it first reports a message starting with ``at``."""

    at, kills = "", False

    def report(self, phase: str, progress: float | None = None, message: str = "") -> None:
        if message.startswith(self.at):
            if self.kills:
                raise Killed
            self.stop.set()
        super().report(phase, progress, message)


def ended(run: RunDirectory, at: str, kills: bool) -> None:
    """Train until the control ends it."""
    store = RunWriter(run)
    control = Ended(run, STEPS)
    control.at, control.kills = at, kills
    try:
        with (
            pytest.raises(Killed if kills else StopRequested),
            prepared(run.read_config(), store, control) as ready,
        ):
            Trainer(run, run.read_config(), ready, store, control).train()
    finally:
        store.close()


def events(run: RunDirectory) -> list[str]:
    said = [event.kind for event in RunReader(run).poll().events]
    return [kind for kind in said if kind not in ("probe", "alarm", "alarm_over")]


def measured(run: RunDirectory) -> dict[tuple[int, str], list[str]]:
    return {(step, name): data["greedy"]["answers"] for step, name, data in RunReader(run).poll().evaluations}


def test_a_run_learns_the_solutions_once_and_ends_in_the_same_bits_wherever_it_was_interrupted(
    config: dict[str, Any],
) -> None:
    settings = resolve(config, {"evaluation.problems": 0})
    whole = train(create_run(settings, "whole"))
    for at, kills, how_often in (
        ("warm start: epoch 2", False, 1),  # stopped in the middle: dropped and repeated
        ("step 1: rollout", True, 2),  # after it, before a checkpoint: repeated
        ("step 3: update", True, 1),  # after a checkpoint, which contains it: not repeated
    ):
        run = create_run(settings, f"{'killed' if kills else 'stopped'} at {at}")
        ended(run, at, kills)
        train(run)
        assert events(run).count("warm_start") == how_often, run.name
        assert weights(run, STEPS) == weights(whole, STEPS), run.name


def test_what_it_taught_stands_on_record_between_the_bases_evaluation_and_the_first_step(
    config: dict[str, Any],
) -> None:
    whole = train(create_run(resolve(config), "whole"))
    assert events(whole) == ["started", "warm_start", "checkpoint", "checkpoint", "finished"]
    delta = RunReader(whole).poll()
    (done,) = [event.data for event in delta.events if event.kind == "warm_start"]
    assert (done["solutions"], done["epochs"], done["updates"], done["too_long"]) == (10, 3, 6, 0)
    assert done["loss_after"] < done["losses"][-1] < done["losses"][0] < done["loss_before"]
    assert done["losses"][0] > 4
    answers = measured(whole)
    assert list(answers) == [(0, "held_out"), (0, "warm_start"), (STEPS, "held_out")]
    assert answers[0, "held_out"] != answers[0, "warm_start"]
    after = {step: data["greedy"] for step, name, data in delta.evaluations if name == "warm_start"}[0]
    assert done["held_out"]["greedy"] == {key: after[key] for key in done["held_out"]["greedy"]}
    assert {"accuracy", "low", "high", "unscorable"} <= done["held_out"]["greedy"].keys()
    said = event_words("warm_start", done)
    assert said.startswith("warm start: 10 worked solutions, 3 epochs (6 updates) in ")
    assert "held-out accuracy after it: greedy " in said


@pytest.mark.parametrize("budget", [1, 14, 10_000])
def test_the_gradient_is_that_of_the_cross_entropy_of_the_completions_alone(tiny_model: Path, budget: int) -> None:
    """Compare with transformers' own loss over labels, which are -100 at the prompt and the padding."""
    policy = load_tiny(tiny_model, "float64")
    optimizer = torch.optim.SGD(policy.adapter_parameters().values(), lr=0.0)
    loss, tokens = supervise(policy, optimizer, EXAMPLES, [0, 2], budget)
    ours = [parameter.grad.clone() for parameter in policy.adapter_parameters().values()]  # type: ignore[union-attr]
    policy.model.zero_grad()
    rows = [(PROMPTS[row], COMPLETIONS[row]) for row in (0, 2)]
    longest = max(len(prompt) + len(completion) for prompt, completion in rows)
    ids, labels, seen = torch.zeros(3, 2, longest, dtype=torch.long)
    labels[:] = -100
    for place, (prompt, completion) in enumerate(rows):
        end = len(prompt) + len(completion)
        ids[place, :end] = torch.tensor(prompt + completion)
        labels[place, len(prompt) : end] = torch.tensor(completion)
        seen[place, :end] = 1
    plain = policy.model(input_ids=ids, attention_mask=seen, labels=labels).loss
    plain.backward()
    assert tokens == 10
    assert loss == pytest.approx(plain.item(), abs=1e-6)
    assert max(float(gradient.abs().max()) for gradient in ours) > 0.01
    for parameter, gradient in zip(policy.adapter_parameters().values(), ours, strict=True):
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-6, rtol=0)


def test_the_reference_of_a_run_that_starts_from_an_adapter_learns_nothing(tiny_model: Path, tmp_path: Path) -> None:
    policy = load_tiny(tiny_model, trained=False)
    start_from(policy, saved(tmp_path, load_tiny(tiny_model)))

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return policy.model(torch.tensor([[5, 6, 7]])).logits  # type: ignore[no-any-return]

    with policy.as_reference():
        before = logits()
    optimizer = torch.optim.SGD(policy.adapter_parameters().values(), lr=0.1)
    supervise(policy, optimizer, EXAMPLES, [0, 1, 2], 10_000)
    optimizer.step()
    assert not torch.allclose(logits(), before)
    with policy.as_reference():
        assert torch.equal(logits(), before)


FAILS: dict[str, tuple[dict[str, Any], str]] = {
    "a rate that is far too high": (
        {"warm_start.learning_rate": 1e30},
        r"warm_start\.learning_rate = 1e\+30: update \d of 6 in the warm start is not a finite number",
    ),
    "solutions that the reward finds wrong": (
        {"warm_start.template": "{answer}0", "rewards": [{"name": "numeric"}]},
        r"warm_start\.template = '\{answer\}0': the reward numeric finds none of the 10 worked solutions right",
    ),
}


@pytest.mark.parametrize(("changes", "said"), FAILS.values(), ids=FAILS)
def test_what_would_be_learned_in_vain_ends_the_run_with_a_clear_line(
    config: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    run = create_run(resolve(config, {"evaluation.problems": 0, "task.options": {"low": 2}} | changes), "failing")
    with pytest.raises(ConfigError, match=said):
        train(run)
    assert not list(run.checkpoints.iterdir())
    assert "warm_start" not in events(run)


def test_a_fork_keeps_the_warm_start_that_its_checkpoint_came_of(config: dict[str, Any]) -> None:
    parent = create_run(resolve(config), "parent")
    with pytest.raises(ConfigError, match=r"warm_start\.epochs = 5 \(from --set\): must stay 3 in a fork"):
        launch.forked_config(parent, 1, {"warm_start.epochs": 5})


def test_a_bundle_holds_no_solution(config: dict[str, Any]) -> None:
    from aapo_desk.bundle.privacy import Privacy

    settings = resolve(
        config,
        {
            "task.source": "countdown",
            "task.options": {"solution": "mine {expression}"},
            "warm_start.template": "my {answer}",
        },
    )
    said = json.dumps(Privacy(texts=False).value(settings.model_dump(mode="json")))
    assert "mine" not in said
    assert "my {" not in said
    assert '"solutions": 10' in said
