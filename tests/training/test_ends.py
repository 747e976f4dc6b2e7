"""A run records its end tokens, reports once if one is only the chat template's, and reuses them when resumed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import launch
from aapo_desk.config import resolve
from aapo_desk.models import ends as model_ends
from aapo_desk.models.ends import TEMPLATE_END
from aapo_desk.store import RunDirectory, RunReader, create_run
from aapo_desk.training.ends import LEFT_OUT
from tests.tiny_model import stop_elsewhere
from tests.training.in_process import NOBODY, killed, train, weights

NAMED, END = 0, 2
"""``<|pad|>`` and ``<|im_end|>`` of the tiny model."""
SAID, KEPT = TEMPLATE_END.format("<|im_end|>"), LEFT_OUT.format("<|im_end|>")
STEPS = 2
pytestmark = pytest.mark.usefixtures("desk_home")


@pytest.fixture
def config(tiny_model: Path, tiny_config: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A model whose end token differs from its template's, and which samples both within a step's completions."""
    folder = stop_elsewhere(tiny_model, tmp_path / "model")
    return tiny_config | {
        "model": tiny_config["model"] | {"id": str(folder)},
        "rollout": {"prompts_per_step": 2, "group_size": 8, "max_new_tokens": 64},
        "optimizer": {"learning_rate": 0.01},
        "evaluation": {"problems": 2, "max_new_tokens": 8},
        "run": {"steps": STEPS, "checkpoint_every": 1, "keep_checkpoints": 9},
    }


def notices(run: RunDirectory) -> list[str]:
    """Return the run's notices about end tokens."""
    said = [event.data["message"] for event in RunReader(run).poll().events if event.kind == "notice"]
    return [message for message in said if "ends a turn" in message]


def forget(run: RunDirectory) -> RunDirectory:
    """Remove the record of end tokens, which runs of older versions do not have."""
    with closing(sqlite3.connect(run.database, isolation_level=None)) as db:
        db.execute("DELETE FROM run WHERE key = 'eos_ids'")
    return run


def ended(run: RunDirectory) -> list[bool]:
    return [not sample.truncated for step in range(1, STEPS + 1) for sample in RunReader(run).samples(step)]


def test_a_run_stops_at_its_templates_end_says_so_once_and_replays_it_on_resume(config: dict[str, Any]) -> None:
    whole = train(create_run(resolve(config), "whole"))
    assert RunReader(whole).facts()["eos_ids"] == [NAMED, END]
    assert notices(whole) == [SAID]
    assert any(ended(whole))
    texts = [sample.completion for step in (1, 2) for sample in RunReader(whole).samples(step)]
    assert not any("<|im_end|>" in text for text in texts)

    resumed = train(killed(create_run(resolve(config), "killed"), STEPS))
    assert notices(resumed) == [SAID]
    assert weights(resumed, STEPS) == weights(whole, STEPS)


def test_a_run_that_an_older_version_began_continues_without_the_templates_end(config: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as older:
        older.setattr(model_ends, "template_end", lambda *_: None)
        whole = train(create_run(resolve(config), "whole"))
        resumed = forget(killed(create_run(resolve(config), "killed"), STEPS))
        parent = forget(train(create_run(resolve(config, {"run.steps": 1}), "parent")))
    assert notices(resumed) == []

    settings = launch.forked_config(parent, 1, {"run.steps": STEPS})
    fork = launch.fork(parent, launch.kept_checkpoint(parent, 1), settings, "fork", NOBODY)
    for run in (resumed, fork):
        train(run)
        assert (RunReader(run).facts()["eos_ids"], notices(run)) == ([NAMED], [KEPT])
        assert weights(run, STEPS) == weights(whole, STEPS)
    new = train(create_run(resolve(config), "new"))
    assert sum(ended(new)) > sum(ended(whole)), "the record makes a difference"


def test_a_fork_has_the_ends_of_its_parent_whatever_else_changes(config: dict[str, Any]) -> None:
    parent = train(create_run(resolve(config, {"run.steps": 1}), "parent"))
    changes = {"run.steps": STEPS, "rollout.max_new_tokens": 32}
    settings = launch.forked_config(parent, 1, changes)
    fork = launch.fork(parent, launch.kept_checkpoint(parent, 1), settings, "fork", NOBODY)
    assert RunReader(fork).facts()["eos_ids"] == [NAMED, END]
    train(fork)
    assert notices(fork) == [SAID], "the parent's, in the history taken along"


def test_a_model_that_names_its_templates_end_has_nothing_to_say(tiny_config: dict[str, Any]) -> None:
    run = train(create_run(resolve(tiny_config, {"run.steps": 1})))
    assert (RunReader(run).facts()["eos_ids"], notices(run)) == ([END], [])
