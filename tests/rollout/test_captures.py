"""A decode step that cannot be captured as a CUDA graph: said once, decoded plainly, never taken for a lack of memory.

Stand-ins take the place of the capturing calls, so that all of it runs on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from aapo_desk.config import resolve
from aapo_desk.models.policy import Policy
from aapo_desk.rollout import CaptureError, Row, Sampling, captured, decode, uniforms
from aapo_desk.rollout.captured import FixedBatch
from aapo_desk.rollout.trial import Workload
from aapo_desk.rollout.verify import verify_fast_paths
from aapo_desk.store import RunReader, create_run, list_checkpoints
from aapo_desk.training import setup
from aapo_desk.training.device.execution_plan import settled
from tests.policies import load_tiny
from tests.training.in_process import train, weights
from tests.training.test_rollback import step_at_work

PROMPTS = [[5, 6, 7, 8, 9], [20, 21]]
ROWS = [Row(prompt, adapter) for adapter in (True, False) for prompt in (0, 1)]


class Stream:
    def wait_stream(self, other: object) -> None: ...


@contextmanager
def capturing(patch: pytest.MonkeyPatch, fails: Callable[[], Exception | None]) -> Iterator[list[str]]:
    """Inside, static-shape steps are captured, by a stand-in that raises what ``fails`` gives. Yields the captures."""
    tried: list[str] = []

    class Graph:
        replay: Any

    @contextmanager
    def graph(taken: Graph, **_: Any) -> Iterator[None]:
        tried.append("capture")
        if error := fails():
            raise error
        batch = working[-1]
        before = {name: value.clone() for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
        yield
        for name, value in before.items():  # a capture computes nothing
            getattr(batch, name).copy_(value)
        taken.replay = batch.advance

    working: list[FixedBatch] = []
    right = FixedBatch.run

    def run(self: FixedBatch, capture: bool, progress: Callable[[float], None]) -> None:
        working.append(self)
        right(self, True, progress)

    patch.setattr(FixedBatch, "run", run)
    patch.setattr(captured, "_side_stream", Stream)
    patch.setattr(torch.cuda, "current_stream", Stream)
    patch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    patch.setattr(torch.cuda, "CUDAGraph", Graph)
    patch.setattr(torch.cuda, "graph", graph)
    yield tried


def broken() -> Exception:
    return RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore lines")


@pytest.fixture
def policy(tiny_model: Path) -> Policy:
    return load_tiny(tiny_model)


def sample(policy: Policy) -> Any:
    return decode(policy, PROMPTS, ROWS, 20, Sampling(), uniforms(len(ROWS), 20, 0), fixed=True)


def test_the_stand_in_captures_and_gives_the_plain_steps(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = sample(policy)
    with capturing(monkeypatch, lambda: None) as tried:
        assert torch.equal(sample(policy).tokens, plain.tokens)
    assert tried


def test_a_capture_that_fails_raises_its_reason(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    with capturing(monkeypatch, broken), pytest.raises(CaptureError, match=r"^CUDA error: operation not permitted"):
        sample(policy)


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried to allocate 2 GiB", "CUDA error: out of memory"])
def test_out_of_memory_inside_a_capture_is_raised_as_itself(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    kind = torch.OutOfMemoryError if "Tried" in message else RuntimeError
    with capturing(monkeypatch, lambda: kind(message)), pytest.raises(kind, match="out of memory"):
        sample(policy)


def test_the_verification_refuses_captures_that_fail(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    choices = {"shadow_weights": 0, "fixed_steps": 1, "share_prompts": 0}
    with capturing(monkeypatch, broken) as tried:
        verdict = verify_fast_paths(policy, Workload(PROMPTS, 2, 20, 8), Sampling(), choices)
    assert verdict.choices["fixed_steps"] == 0
    assert list(verdict.refused) == ["fixed_steps"]
    assert (
        "cannot be captured as a CUDA graph on this device (CUDA error: operation not" in verdict.refused["fixed_steps"]
    )
    assert len(tried) == 1


@pytest.fixture
def with_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs choose static-shape steps, as they do on CUDA."""

    def static(*given: Any) -> dict[str, int]:
        return settled(*[*given[:-1], {"fixed_steps": 1}])

    monkeypatch.setattr(setup, "settled", static)


@pytest.mark.usefixtures("with_captures")
def test_a_run_says_once_that_captures_fail_and_a_resume_ends_in_the_same_bits(
    desk_home: Path, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The capture fails in the second step, with the first's rows: that step is decoded plainly, and all after it."""
    changes = {"run.steps": 4, "run.checkpoint_every": 100, "evaluation.problems": 0, "rollout.max_new_tokens": 20}
    run = create_run(resolve(tiny_config, changes))
    with monkeypatch.context() as patch, capturing(patch, lambda: broken() if step_at_work() == 2 else None) as tried:
        train(run)
    assert tried
    reader = RunReader(run)
    notices = [event for event in reader.poll().events if event.kind == "notice"]
    assert [event.step for event in notices] == [2]
    assert "cannot be captured as a CUDA graph: CUDA error: operation not permitted" in notices[0].data["message"]
    assert reader.facts()["choices"]["fixed_steps"] == 0
    assert [one.step for one in list_checkpoints(run.checkpoints)] == [4, 2]
    ended = weights(run, 4)

    list_checkpoints(run.checkpoints)[0].path.rename(run.path / "gone")
    with monkeypatch.context() as patch, capturing(patch, lambda: None) as tried:
        train(run)
    assert tried == []
    assert weights(run, 4) == ended


@pytest.mark.usefixtures("with_captures")
def test_a_run_whose_first_captures_fail_never_tries_again(
    desk_home: Path, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"run.steps": 2, "rollout.max_new_tokens": 20}
    run = create_run(resolve(tiny_config, changes))
    with monkeypatch.context() as patch, capturing(patch, broken) as tried:
        train(run)
    assert len(tried) == 1
    notices = [event for event in RunReader(run).poll().events if event.kind == "notice"]
    assert len(notices) == 1
    assert "cannot be captured" in notices[0].data["message"]
