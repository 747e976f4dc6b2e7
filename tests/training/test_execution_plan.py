"""The execution plan: a run's choices for its device, and that they are kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import RunConfig, resolve
from aapo_desk.models.policy import Policy
from aapo_desk.models.room import shape_of
from aapo_desk.models.shadow import ShadowWeight
from aapo_desk.models.unsloth import UnslothError
from aapo_desk.store import RunReader, RunWriter, create_run
from aapo_desk.training.device import execution_plan as device_choices
from aapo_desk.training.device.execution_plan import settled
from tests.policies import load_tiny

KEYS = {
    "token_budget",
    "batch_rows",
    "share_prompts",
    "threads",
    "checkpointing",
    "shadow_weights",
    "own_update",
    "fixed_steps",
    "row_mask",
}
PROMPTS = [[5, 6, 7], [20, 21]]


@pytest.fixture
def policy(tiny_model: Path) -> Policy:
    return load_tiny(tiny_model)


@pytest.fixture
def store(desk_home: Path, tiny_config: dict[str, Any]) -> Iterator[RunWriter]:
    writer = RunWriter(create_run(resolve(tiny_config)))
    yield writer
    writer.close()


def settle(store: RunWriter, policy: Policy, config: RunConfig) -> dict[str, int]:
    return settled(store, policy, config, PROMPTS, lambda _: None)


def test_choices_are_made_once_and_replayed(
    policy: Policy, store: RunWriter, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolve(tiny_config)
    first = settle(store, policy, config)
    assert first.keys() == KEYS
    assert (first["token_budget"], first["batch_rows"], first["checkpointing"]) == (512, 256, 0)
    monkeypatch.setattr(device_choices, "free_bytes", lambda device: 0)
    assert settle(store, policy, config) == first


def test_scarce_memory_asks_for_single_rows_and_checkpointing(
    policy: Policy, store: RunWriter, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_choices, "free_bytes", lambda device: 0)
    choices = settle(store, policy, resolve(tiny_config))
    assert (choices["token_budget"], choices["batch_rows"]) == (1, 1)
    assert (choices["checkpointing"], choices["shadow_weights"]) == (1, 0)


def test_a_record_from_before_checkpointing_still_replays(
    policy: Policy, store: RunWriter, tiny_config: dict[str, Any]
) -> None:
    old = {"token_budget": 100, "batch_rows": 7, "share_prompts": 1, "threads": 2}
    store.remember("choices", old)
    assert settle(store, policy, resolve(tiny_config)) == (
        old | {"checkpointing": 0, "shadow_weights": 0, "fixed_steps": 0, "row_mask": 1, "own_update": 0}
    )


def test_a_model_of_an_unknown_family_is_taken_for_a_llama_of_its_size(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known = shape_of(policy)
    monkeypatch.setattr(type(policy.causal.config), "model_type", "granite")
    with caplog.at_level(logging.WARNING):
        assert shape_of(policy) == known
    assert "granite" in caplog.text


@pytest.mark.parametrize(("weights", "used"), [("auto", 1), ("shadow", 1), ("adapter", 0)])
def test_shadow_weights_are_used_as_configured(
    policy: Policy, store: RunWriter, tiny_config: dict[str, Any], weights: str, used: int
) -> None:
    config = resolve(tiny_config, {"rollout.weights": weights})
    assert settle(store, policy, config)["shadow_weights"] == used
    assert (policy.shadow is not None) == bool(used)


def test_a_path_that_fails_its_proof_is_left_and_the_run_says_so(
    policy: Policy, store: RunWriter, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = ShadowWeight.linear
    monkeypatch.setattr(ShadowWeight, "linear", lambda self, *rest: right(self, *rest) * 1.05)
    config = resolve(tiny_config)
    choices = settle(store, policy, config)
    assert choices["shadow_weights"] == 0
    assert policy.shadow is None
    events = RunReader(store.run).poll().events
    assert [event.kind for event in events] == ["notice", "probe"]
    assert "the run continues without it" in events[0].data["message"]
    assert settle(store, policy, config) == choices


def test_where_unsloth_computes_the_layers_nothing_of_ours_stands_in_for_them(
    policy: Policy, store: RunWriter, tiny_config: dict[str, Any]
) -> None:
    policy.backend = "unsloth"
    choices = settle(store, policy, resolve(tiny_config, {"rollout.weights": "shadow"}))
    assert (choices["row_mask"], choices["own_update"], choices["shadow_weights"]) == (0, 0, 0)
    assert choices["share_prompts"] == 1
    assert not policy.masks_rows
    assert policy.shadow is None


@pytest.mark.parametrize(
    ("found", "said"),
    [("decodes otherwise", "^decodes otherwise$"), (TypeError("no [0]"), "failed a trial run: TypeError")],
)
def test_an_unsloth_that_does_not_get_on_with_the_loop_is_not_trained_with(
    policy: Policy,
    store: RunWriter,
    tiny_config: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    found: str | Exception,
    said: str,
) -> None:
    def check_backend(*_: object) -> str:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(device_choices, "check_backend", check_backend)
    policy.backend = "unsloth"
    with pytest.raises(UnslothError, match=said) as caught:
        settle(store, policy, resolve(tiny_config))
    assert caught.value.imported
    assert store.recall("choices") is None
