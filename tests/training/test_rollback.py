"""Non-finite numbers: which steps are skipped, how a run is rolled back, when it fails, and what is never saved."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aapo_desk.algorithms import aapo
from aapo_desk.checkpoint import refuse_broken
from aapo_desk.config import resolve
from aapo_desk.models.policy import Policy
from aapo_desk.rollout import derive_seed
from aapo_desk.store import RunDirectory, RunReader, create_run, event_words, home, list_checkpoints
from aapo_desk.training.control import Control, StopRequested
from aapo_desk.training.forward import Rollout
from aapo_desk.training.loss_scaling import FIRST, LEAST, LossScale
from aapo_desk.training.rollback import NumbersError, Recovery
from aapo_desk.training.update import Update, update
from tests.policies import load_tiny
from tests.training.in_process import train, weights

RATE = 1e-3


@pytest.fixture
def config(tiny_config: dict[str, Any]) -> dict[str, Any]:
    return tiny_config | {
        "rewards": [{"name": "format", "options": {"pattern": "[a-m]"}}],  # its workers start in a moment
        "run": {"steps": 6, "checkpoint_every": 1, "keep_checkpoints": 1},
        "evaluation": {"problems": 0},
        "optimizer": {"learning_rate": RATE},
    }


def step_at_work(steps: int = 12) -> int | None:
    """Return the current step's number, derived from the seed that each step sets; None outside a step."""
    seeds = {derive_seed(0, "step", number): number for number in range(1, steps)}
    return seeds.get(torch.initial_seed())


class Faults:
    """The steps at which something fails, and how often each of them has run."""

    def __init__(self, steps: set[int], times: int) -> None:
        self._steps = steps
        self._times = times
        self.seen: dict[int, int] = {}

    def strike(self) -> bool:
        step = step_at_work()
        if step not in self._steps or self.seen.get(step, 0) == self._times:
            return False
        self.seen[step] = self.seen.get(step, 0) + 1
        return True


@pytest.fixture
def nan_gradient(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int], int], None]:
    """Make the gradient non-finite in these steps, the given number of times each."""

    def install(steps: set[int], times: int) -> None:
        faults, norm = Faults(steps, times), torch.nn.utils.get_total_norm

        def broken(gradients: list[Tensor], *rest: Any) -> Tensor:
            if faults.strike():
                gradients[1].fill_(torch.nan)
            return norm(gradients, *rest)

        monkeypatch.setattr(torch.nn.utils, "get_total_norm", broken)

    return install


@pytest.fixture
def broken_weight(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make a weight non-finite after this step's update, once."""

    def install(number: int) -> None:
        faults, step = Faults({number}, 1), torch.optim.AdamW.step

        def broken(self: torch.optim.AdamW, *arguments: Any) -> Any:
            done = step(self, *arguments)
            if faults.strike():
                self.param_groups[0]["params"][2].data.fill_(torch.inf)
            return done

        monkeypatch.setattr(torch.optim.AdamW, "step", broken)

    return install


def new_run(config: dict[str, Any], changes: dict[str, Any] | None = None, name: str = "run") -> RunDirectory:
    return create_run(resolve(config, changes or {}), name)


def events(run: RunDirectory, kind: str) -> list[tuple[int, dict[str, Any]]]:
    return [(event.step, dict(event.data)) for event in RunReader(run).poll().events if event.kind == kind]


def metric(run: RunDirectory, name: str) -> dict[int, float | None]:
    return {step: data.get(name) for step, _, data in RunReader(run).poll().metrics}


def test_a_step_that_is_not_finite_is_left_out_and_recorded(
    desk_home: Path, config: dict[str, Any], nan_gradient: Callable[[set[int], int], None]
) -> None:
    nan_gradient({2}, 1)
    run = train(new_run(config, {"run.steps": 3, "run.keep_checkpoints": 9}))
    ((step, data),) = events(run, "not_finite")
    assert (step, data["what"], data["in_a_row"]) == (2, "gradient", 1)
    assert "layers.0.self_attn" in data["where"]
    assert metric(run, "not_finite") == {1: None, 2: 1, 3: None}
    assert weights(run, 2) == weights(run, 1)
    assert weights(run, 3) != weights(run, 2)
    assert event_words("not_finite", data).startswith("step skipped: a gradient was not finite (")
    assert not events(run, "went_back")


def test_three_in_a_row_go_back_to_the_checkpoint_before_them_at_half_the_rate(
    desk_home: Path, config: dict[str, Any], nan_gradient: Callable[[set[int], int], None]
) -> None:
    nan_gradient({3, 4, 5}, 1)
    run = train(new_run(config, {"run.keep_checkpoints": 9}))
    assert [step for step, _ in events(run, "not_finite")] == [3, 4, 5]
    ((step, data),) = events(run, "went_back")
    assert (step, data["from_step"], data["to_step"], data["factor"]) == (2, 5, 2, 0.5)
    assert event_words("went_back", data) == (
        "rolled back from step 5 to the checkpoint of step 2: 3 steps in a row were not finite; from there the "
        "learning rate is 0.5 times the configured one"
    )
    assert metric(run, "learning_rate") == {1: RATE, 2: RATE, **dict.fromkeys((3, 4, 5, 6), RATE / 2)}
    assert not any(metric(run, "not_finite").values())
    ended = weights(run, 6)

    # Interrupted after the rollback, it continues at that rate and ends in the same bits.
    for checkpoint in list_checkpoints(run.checkpoints)[:2]:
        checkpoint.path.rename(run.path / f"gone-{checkpoint.step}")
    train(run)
    assert weights(run, 6) == ended


def test_without_a_checkpoint_a_run_goes_back_to_its_start(
    desk_home: Path, config: dict[str, Any], nan_gradient: Callable[[set[int], int], None]
) -> None:
    half = train(new_run(config, {"optimizer.learning_rate": RATE / 2}, "half"))
    nan_gradient({2, 3, 4}, 1)
    run = train(new_run(config, {"run.checkpoint_every": 100}))
    ((step, data),) = events(run, "went_back")
    assert (step, data["to_step"]) == (0, 0)
    assert sorted(metric(run, "loss")) == [1, 2, 3, 4, 5, 6]
    assert weights(run, 6) == weights(half, 6)


def test_back_at_its_start_a_run_remembers_nothing_of_what_it_has_seen(
    desk_home: Path, config: dict[str, Any], broken_weight: Callable[[int], None], tmp_path: Path
) -> None:
    problems = tmp_path / "problems.csv"
    problems.write_text("problem,answer\n" + "".join(f"{number} + 2 =,{number + 2}\n" for number in range(5)))
    config["task"] = {"source": f"file:{problems}", "held_out": 0, "difficulty": "adaptive"}
    changes = {"run.checkpoint_every": 100, "model.compute_dtype": "float16"}
    half = train(new_run(config, {**changes, "optimizer.learning_rate": RATE / 2}, "half"))
    broken_weight(3)
    run = train(new_run(config, changes))
    ((_, data),) = events(run, "went_back")
    assert (data["from_step"], data["to_step"]) == (3, 0)
    assert weights(run, 6) == weights(half, 6)
    states = [list_checkpoints(one.checkpoints)[0].read_state() for one in (run, half)]
    for kept in ("loss_scale", "difficulty"):
        assert states[0][kept] == states[1][kept] is not None


def test_a_second_time_it_fails_and_says_what_to_change(
    desk_home: Path, config: dict[str, Any], nan_gradient: Callable[[set[int], int], None]
) -> None:
    nan_gradient({3, 4, 5}, 9)
    run = new_run(config)
    with pytest.raises(NumbersError) as failure:
        train(run)
    said = str(failure.value)
    assert said.startswith("the last 3 steps (to 5) were not finite, most recently a gradient (base_model.")
    assert "had already gone back from step 5 to step 2 and continued at 0.5 of the learning rate" in said
    assert "lower optimizer.learning_rate (0.001)" in said
    assert len(events(run, "went_back")) == 1
    for checkpoint in list_checkpoints(run.checkpoints):
        refuse_broken(checkpoint)


def test_a_resume_in_the_middle_of_bad_steps_counts_those_before_it(
    desk_home: Path, config: dict[str, Any], nan_gradient: Callable[[set[int], int], None]
) -> None:
    nan_gradient({3, 4, 5}, 1)
    run = new_run(config, {"run.steps": 4})
    train(run)  # as if it had been stopped after step 4
    run.config.write_text(resolve(config).model_dump_json())
    run = RunDirectory(run.path)
    train(run)
    assert [data["in_a_row"] for _, data in events(run, "not_finite")] == [1, 2, 3]
    ((_, data),) = events(run, "went_back")
    assert (data["from_step"], data["to_step"]) == (5, 2)


@pytest.mark.parametrize(("before", "left"), [("place", [4, 2]), ("_forget", [4, 2]), (None, [2])])
def test_killed_while_it_goes_back_it_goes_back_again(
    desk_home: Path,
    config: dict[str, Any],
    nan_gradient: Callable[[set[int], int], None],
    monkeypatch: pytest.MonkeyPatch,
    before: str | None,
    left: list[int],
) -> None:
    nan_gradient({3, 4, 5}, 1)
    whole = weights(train(new_run(config)), 6)
    forget = Recovery._forget

    def die(self: Recovery, *arguments: Any) -> None:
        if before is None:
            forget(self, *arguments)
        raise KeyboardInterrupt

    run = new_run(config, name="killed")
    with monkeypatch.context() as context:
        context.setattr(Recovery, before or "_forget", die)
        nan_gradient({3, 4, 5}, 1)
        with pytest.raises(KeyboardInterrupt):
            train(run)
    assert [one.step for one in list_checkpoints(run.checkpoints)] == left
    train(run)
    assert weights(run, 6) == whole
    assert sorted(metric(run, "loss")) == [1, 2, 3, 4, 5, 6]


def test_a_broken_optimiser_step_is_undone_at_once(
    desk_home: Path, config: dict[str, Any], broken_weight: Callable[[int], None]
) -> None:
    broken_weight(4)
    run = train(new_run(config))
    ((_, data),) = events(run, "not_finite")
    assert data["what"] == "weight"
    ((_, data),) = events(run, "went_back")
    assert (data["from_step"], data["to_step"]) == (4, 3)
    refuse_broken(list_checkpoints(run.checkpoints)[0])
    assert metric(run, "loss").keys() == {1, 2, 3, 4, 5, 6}


def test_a_rollout_whose_log_probs_are_not_finite_teaches_nothing_and_is_not_banked(
    desk_home: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = Policy.logits

    def broken(self: Policy, hidden: Tensor) -> Tensor:
        seen = logits(self, hidden)
        return seen * torch.nan if step_at_work() == 2 and not self.model.training else seen

    monkeypatch.setattr(Policy, "logits", broken)
    run = train(new_run(config, {"algorithm.reference": "bank", "run.steps": 2, "run.keep_checkpoints": 2}))
    ((step, data),) = events(run, "not_finite")
    assert (step, data["what"], data["where"]) == (2, "log-prob", "the policy's rollout, row 0")
    assert weights(run, 2) == weights(run, 1)
    with closing(sqlite3.connect(next((home() / "bank").glob("*.db")))) as bank:
        assert bank.execute("SELECT COUNT(*) FROM banked").fetchone()[0] == 2  # of the first step's problems


def test_log_probs_that_are_not_finite_in_the_update_are_told_from_a_loss(tiny_model: Path) -> None:
    done = one_update(tiny_model, None, lambda policy: policy.causal.lm_head.weight.data[20].fill_(torch.nan))
    assert not done.applied
    assert done.broken
    assert (done.broken.what, done.broken.where) == ("log-prob", "the update, row 0")


def test_a_moment_that_is_not_finite_counts_as_well(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = torch.optim.AdamW.step

    def broken(self: torch.optim.AdamW, *arguments: Any) -> Any:
        done = step(self, *arguments)
        self.state[self.param_groups[0]["params"][0]]["exp_avg"].fill_(torch.inf)
        return done

    monkeypatch.setattr(torch.optim.AdamW, "step", broken)
    done = one_update(tiny_model, None, lambda _: None)
    assert done.broken
    assert (done.broken.what, done.broken.is_kept, done.applied) == ("moment", True, False)
    assert done.broken.where.endswith("/exp_avg")


@pytest.mark.parametrize(("factor", "counts"), [(FIRST, False), (LEAST, True)])
def test_a_loss_scale_that_adapts_is_no_fault_until_it_is_at_its_least(
    tiny_model: Path, factor: float, counts: bool
) -> None:
    def overflow(policy: Policy) -> None:
        for parameter in policy.adapter_parameters().values():
            parameter.register_hook(lambda gradient: gradient * torch.inf)

    scale = LossScale(factor)
    done = one_update(tiny_model, scale, overflow)
    assert not done.applied
    assert scale.skipped == 1
    assert (done.broken is not None) == counts


def one_update(model: Path, scale: LossScale | None, spoil: Callable[[Policy], Any]) -> Update:
    policy = load_tiny(model)
    spoil(policy)
    rollout = Rollout([[5, 6, 7]] * 2, [[20, 21], [22, 2]], temperature=1.0, group_size=2)
    rewards = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    optimizer = torch.optim.AdamW(policy.adapter_parameters().values())
    return update(
        policy, optimizer, aapo.make(), rollout, rewards, rewards.flip(1),
        rate=1e-3, max_grad_norm=1.0, token_budget=64, scale=scale,
    )  # fmt: skip


def test_a_stop_between_the_updates_of_one_rollout_waits_for_the_last(
    desk_home: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the previous step's checkpoint would contain a part of this step."""
    changes = {"algorithm.name": "grpo", "algorithm.updates_per_rollout": 2, "run.checkpoint_every": 100}
    plain = {"algorithm": {}, **config}
    whole = weights(train(new_run(plain, changes, "whole")), 6)
    run = new_run(plain, changes, "stopped")
    asked, step = [], torch.optim.AdamW.step

    def ask(self: torch.optim.AdamW, *arguments: Any) -> Any:
        asked.append(step_at_work())
        return step(self, *arguments)

    say = Control.say

    def said(self: Control, **changes: Any) -> None:
        if asked.count(3) == 1:  # the first update of step 3 is applied, its second not
            self.stop.set()
        say(self, **changes)

    monkeypatch.setattr(torch.optim.AdamW, "step", ask)
    monkeypatch.setattr(Control, "say", said)
    with pytest.raises(StopRequested):
        train(run)
    monkeypatch.undo()
    monkeypatch.setenv("AAPO_DESK_HOME", str(desk_home))
    train(run)
    assert weights(run, 6) == whole
