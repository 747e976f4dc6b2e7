"""Out of memory during a run: half as much is computed at once, with the same result, and the run continues."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from aapo_desk import rollout
from aapo_desk.config import resolve
from aapo_desk.evaluation import asking
from aapo_desk.models.policy import Policy
from aapo_desk.models.room import ran_out
from aapo_desk.store import RunDirectory, RunReader, RunWriter, create_run, event_words, list_checkpoints
from aapo_desk.training import update as engine
from aapo_desk.training.context import TrainContext
from aapo_desk.training.control import Control
from aapo_desk.training.device.allocator import MemoryGoneError, TornStepError
from aapo_desk.training.oom_retry import OomRetry
from aapo_desk.training.setup import prepared
from aapo_desk.training.step import StepResult, run_step
from aapo_desk.training.warm_start import warm_start
from tests.training.in_process import train, weights
from tests.training.test_rollback import step_at_work

Raises = Callable[[], Exception]


def of_the_allocator() -> Exception:
    """Return the error that torch's CPU allocator raises when memory runs out."""
    try:
        torch.empty(1 << 60, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError("so much memory there is nowhere")


KINDS: dict[str, Raises] = {
    "CUDA": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "the CPU's allocator": of_the_allocator,
    "Python": MemoryError,
}


@pytest.fixture
def config(tiny_config: dict[str, Any]) -> dict[str, Any]:
    return tiny_config | {
        "rewards": [{"name": "format", "options": {"pattern": "[a-m]"}}],  # its workers start in a moment
        "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
        "run": {"steps": 3, "checkpoint_every": 100},
        "evaluation": {"problems": 0},
    }


@contextmanager
def loaded(config: dict[str, Any], changes: dict[str, Any], name: str) -> Iterator[tuple[TrainContext, RunWriter]]:
    """Everything that a step needs, as the trainer loads it, with an OOM retry."""
    run = create_run(resolve(config, changes), name)
    store = RunWriter(run)
    try:
        with prepared(run.read_config(), store, Control(run, 3), probed=False) as ready:
            ready.context.oom_retry = OomRetry(ready.context, store)
            ready.context.oom_retry.step = 1
            yield ready.context, store
    finally:
        store.close()


@contextmanager
def memory(
    parts: TrainContext, tokens: int, training: bool, error: Raises = KINDS["CUDA"], seen: list[int] | None = None
) -> Iterator[None]:
    """Inside the context, memory runs out if more tokens than this are computed at once, in the update or in decoding.

    Random numbers are drawn before the failure, as a model's first layers would do.
    """

    def look(module: Any, _arguments: Any, given: dict[str, Any]) -> None:
        if module.training != training:
            return
        if seen is not None:
            seen.append(given["input_ids"].numel())
        if given["input_ids"].numel() > tokens:
            torch.rand(7)
            raise error()

    hook = parts.policy.decoder.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def gradients(parts: TrainContext) -> torch.Tensor:
    return torch.cat([value.grad.flatten() for value in parts.policy.adapter_parameters().values()])  # type: ignore[union-attr]


def one_step(parts: TrainContext) -> tuple[StepResult, torch.Tensor]:
    result = run_step(parts, 1, lambda *_: None)
    return result, gradients(parts)


@pytest.mark.parametrize("error", KINDS.values(), ids=KINDS)
def test_each_device_says_in_its_own_way_that_memory_ran_out(error: Raises) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        raise error()
    assert ran_out(caught.value)


def test_the_gradient_after_a_halved_micro_batch_equals_the_whole_one(desk_home: Path, config: dict[str, Any]) -> None:
    changes = {"lora.dropout": 0}
    with loaded(config, changes, "whole") as (parts, _):
        whole, expected = one_step(parts)
        budget = parts.choices["token_budget"]
    seen: list[int] = []
    with loaded(config, changes, "halved") as (parts, store), memory(parts, 100, True, of_the_allocator, seen):
        halved, found = one_step(parts)
        assert parts.choices["token_budget"] < budget
        assert max(seen) > 100  # it was tried
        ((kind, data),) = store.events("oom")
    assert float(expected.norm()) > 0.01
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert halved.update.loss == pytest.approx(whole.update.loss, abs=1e-6)
    assert data["phase"] == "update"
    assert data["after"]["token_budget"] < data["before"]["token_budget"] == budget
    assert re.fullmatch(
        r"out of memory in the update, which is repeated: the update's micro-batches from \d+ to \d+ tokens",
        event_words(kind, data),
    )


def test_what_is_computed_again_is_what_a_smaller_plan_would_have_computed(
    desk_home: Path, config: dict[str, Any]
) -> None:
    """Dropout is on: neither a gradient nor a random number of the failed attempt remains."""
    with loaded(config, {}, "halved") as (parts, _), memory(parts, 100, True):
        _, found = one_step(parts)
        smaller = dict(parts.choices)
    with loaded(config, {}, "small") as (parts, _):
        assert parts.choices != smaller
        parts.choices.update(smaller)
        _, expected = one_step(parts)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("reference", ["fresh", "bank"])
def test_a_rollout_in_halved_batches_gives_the_same_completions(
    desk_home: Path, config: dict[str, Any], reference: str
) -> None:
    changes = {"algorithm.reference": reference}
    with loaded(config, changes, "whole") as (parts, _):
        whole, expected = one_step(parts)
        batch = parts.choices["batch_rows"]
    shutil.rmtree(desk_home / "bank", ignore_errors=True)
    with loaded(config, changes, "halved") as (parts, store), memory(parts, 60, False):
        halved, found = one_step(parts)
        assert parts.choices["batch_rows"] < batch
        phases = {data["phase"] for _, data in store.events("oom")}
    assert phases == ({"rollout"} if reference == "fresh" else {"rollout"} | phases & {"reference"})
    assert [one.completion for one in halved.record.samples] == [one.completion for one in whole.record.samples]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def warmed(config: dict[str, Any], name: str, tokens: int) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """Return the adapter after a warm start in which memory runs out above this many tokens, and the OOM events."""
    settings = {"solutions": 10, "epochs": 2, "learning_rate": 0.01}
    with loaded(config | {"warm_start": settings}, {"lora.dropout": 0}, name) as (parts, store):
        assert parts.oom_retry
        parts.oom_retry.step = 0
        with memory(parts, tokens, True):
            warm_start(parts, store, lambda *_: None, None)
        adapter = torch.cat([value.detach().flatten() for value in parts.policy.adapter_parameters().values()])
        return adapter, [data for _, data in store.events("oom")]


def test_a_warm_start_is_halved_too(desk_home: Path, config: dict[str, Any]) -> None:
    whole, nothing = warmed(config, "whole", 10_000)
    halved, happened = warmed(config, "halved", 100)
    assert not nothing
    assert {data["phase"] for data in happened} == {"update"}
    torch.testing.assert_close(halved, whole, atol=1e-4, rtol=0)
    with pytest.raises(MemoryGoneError, match="memory ran out in the warm start even with a single row at a time"):
        warmed(config, "none", 1)


def test_where_a_single_row_is_too_much_time_is_given_up_and_then_the_run(
    desk_home: Path, config: dict[str, Any]
) -> None:
    with loaded(config, {}, "run") as (parts, store):
        parts.policy.use_shadow()
        parts.choices["shadow_weights"] = 1
        with memory(parts, 1, True), pytest.raises(MemoryGoneError) as failure:
            one_step(parts)
        changed = [set(data["after"]) for _, data in store.events("oom")]
        assert changed[-2:] == [{"shadow_weights"}, {"checkpointing"}]
        assert {"token_budget"} in changed
        assert parts.policy.shadow is None
    said = str(failure.value)
    assert said.startswith("memory ran out in the update of step 1 even with a single row at a time")
    assert "lower rollout.max_new_tokens (6), task.max_prompt_tokens (200) or lora.r (4)" in said


def test_another_error_is_not_taken_for_a_lack_of_memory(desk_home: Path, config: dict[str, Any]) -> None:
    assert not ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with (
        loaded(config, {}, "run") as (parts, store),
        memory(parts, 1, True, lambda: RuntimeError("shapes")),
        pytest.raises(RuntimeError, match="shapes"),
    ):
        one_step(parts)
    assert store.run.database.exists()


def limited(monkeypatch: pytest.MonkeyPatch, at: tuple[int | None, bool], tokens: int) -> None:
    """Let the model's passes in this step, in training or not, run out of memory above this many tokens."""
    from transformers import LlamaModel

    forward = LlamaModel.forward

    def small(self: Any, *arguments: Any, **given: Any) -> Any:
        if (step_at_work(), self.training) == at and given["input_ids"].numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, *arguments, **given)

    small.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(LlamaModel, "forward", small)


@pytest.mark.parametrize("training", [True, False], ids=["update", "rollout"])
def test_a_run_goes_on_with_what_it_chose_and_a_resume_ends_in_the_same_bits(
    desk_home: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    run = create_run(resolve(config))
    with monkeypatch.context() as context:
        limited(context, (2, training), 100 if training else 60)
        train(run)
    choice = "token_budget" if training else "batch_rows"
    happened = [event for event in RunReader(run).poll().events if event.kind == "oom"]
    assert [event.step for event in happened] == [2] * len(happened)
    kept = recalled(run)
    assert kept[choice] == happened[-1].data["after"][choice]
    # The choice holds from a checkpoint after the step on: no earlier step is ever computed with it.
    assert [one.step for one in list_checkpoints(run.checkpoints)] == [3, 2]
    ended = weights(run, 3)

    last = list_checkpoints(run.checkpoints)[0].path
    last.rename(run.path / "gone")
    train(run)
    assert recalled(run) == kept
    assert weights(run, 3) == ended


def test_an_evaluation_is_halved_too(desk_home: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"evaluation.problems": 8, "run.steps": 1}
    whole = train(create_run(resolve(config, changes), "whole"))
    decode = rollout.decode

    def small(*given: Any) -> Any:
        if given[6] > 4:  # rows at once
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(*given)

    monkeypatch.setattr(asking, "decode", small)
    run = train(create_run(resolve(config, changes), "halved"))
    happened = [event for event in RunReader(run).poll().events if event.kind == "oom"]
    assert [(event.step, event.data["phase"]) for event in happened] == [(0, "evaluation")] * 2
    assert recalled(run)["batch_rows"] == 4
    answers = [
        {step: data["greedy"]["answers"] for step, _, data in RunReader(each).poll().evaluations}
        for each in (whole, run)
    ]
    assert answers[0] == answers[1]
    assert answers[0].keys() == {0, 1}


def scarce(monkeypatch: pytest.MonkeyPatch, short: Callable[[Policy], bool]) -> None:
    """Let memory run out when an optimiser step is prepared."""
    ready = engine.ready

    def small(policy: Policy, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        if short(policy):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ready(policy, optimizer)

    monkeypatch.setattr(engine, "ready", small)


def test_where_there_is_no_room_for_the_optimizer_it_is_made_and_the_step_is_applied_once(
    desk_home: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name, short in (("whole", False), ("short", True)):
        with loaded(config, {}, name) as (parts, store), monkeypatch.context() as context:
            parts.policy.use_shadow()
            parts.choices["shadow_weights"] = 1
            if short:
                scarce(context, lambda policy: policy.shadow is not None)
            assert one_step(parts)[0].update.applied
            assert (parts.policy.shadow is None) == short
            found.append([value.detach().clone() for value in parts.policy.adapter_parameters().values()])
            said = [event_words(*event) for event in store.events("oom")]
    assert said == ["out of memory in the optimizer, which is repeated: no dequantized weights are kept"]
    assert all(map(torch.equal, *found))


def test_a_run_without_room_for_the_optimizer_keeps_its_last_step_and_says_what_to_change(
    desk_home: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights(train(create_run(resolve(config), "whole")), 3)
    run = create_run(resolve(config), "short")
    with monkeypatch.context() as context:
        scarce(context, lambda _: step_at_work() == 3)
        with pytest.raises(MemoryGoneError) as failure:
            train(run)
    said = str(failure.value)
    assert re.search(
        r"in the optimizer of step 3 \(the gradient, AdamW's two moments and a copy .* need \d+ MB\)", said
    )
    assert "a lower lora.r (4), or fewer lora.targets" in said
    assert [one.step for one in list_checkpoints(run.checkpoints)] == [2]
    train(run)
    assert weights(run, 3) == whole


def test_a_step_that_memory_tears_is_never_saved(
    desk_home: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third step changes the adapter's first weight before memory runs out."""
    changes = {"run.checkpoint_every": 1}
    whole = weights(train(create_run(resolve(config, changes), "whole")), 3)
    run = create_run(resolve(config, changes), "torn")
    step = torch.optim.AdamW.step

    def torn(self: torch.optim.AdamW, *given: Any) -> Any:
        if step_at_work() == 3:
            with torch.no_grad():
                self.param_groups[0]["params"][0].add_(1.0)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(self, *given)

    with monkeypatch.context() as context:
        context.setattr(torch.optim.AdamW, "step", torn)
        with pytest.raises(
            TornStepError, match=r"this step is lost: close .* and resume, .*Tried to allocate 2\.00 GiB"
        ):
            train(run)
    assert [one.step for one in list_checkpoints(run.checkpoints)] == [2, 1]
    train(run)
    assert weights(run, 3) == whole


def recalled(run: RunDirectory) -> dict[str, int]:
    store = RunWriter(run)
    try:
        choices: dict[str, int] = store.recall("choices")
        return choices
    finally:
        store.close()
