from __future__ import annotations

import json
from pathlib import Path

import pytest

from aapo_desk.config import ConfigError, resolve
from aapo_desk.store import RunDirectory, create_run, find_run, pin_run, rename_run


@pytest.fixture
def runs(desk_home: Path) -> tuple[RunDirectory, RunDirectory]:
    config = resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}})
    return create_run(config, "first"), create_run(config, "second")


def test_a_renamed_run_is_found_by_its_new_name_and_keeps_all_else(runs: tuple[RunDirectory, RunDirectory]) -> None:
    first, _ = runs
    first.meta.write_text(json.dumps({"name": "first", "pinned": True, "notes": "good"}), encoding="utf-8")
    rename_run(first, "better")
    assert find_run("better") == first
    assert first.read_meta() == {"name": "better", "pinned": True, "notes": "good"}


def test_a_run_may_keep_its_name_or_take_its_id(runs: tuple[RunDirectory, RunDirectory]) -> None:
    first, _ = runs
    rename_run(first, "first")
    rename_run(first, first.id)
    assert first.name == first.id


@pytest.mark.parametrize("name", ["second", "a/b", "", "  ", "last", "two\nlines"])
def test_a_name_that_is_taken_or_cannot_be_one_changes_nothing(
    runs: tuple[RunDirectory, RunDirectory], name: str
) -> None:
    with pytest.raises(ConfigError):
        rename_run(runs[0], name)
    with pytest.raises(ConfigError):
        rename_run(runs[0], runs[1].id)
    assert runs[0].name == "first"


def test_a_run_is_pinned_and_let_go(runs: tuple[RunDirectory, RunDirectory]) -> None:
    first, second = runs
    pin_run(first, True)
    assert (first.read_meta()["pinned"], second.read_meta()["pinned"]) == (True, False)
    pin_run(first, False)
    assert {key: first.read_meta()[key] for key in ("name", "pinned", "notes")} == {
        "name": "first",
        "pinned": False,
        "notes": "",
    }
