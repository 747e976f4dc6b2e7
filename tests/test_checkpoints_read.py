"""A run's checkpoints as anyone reads them: which there are, which are whole. No tensors are needed for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.store import StoreError
from aapo_desk.store.checkpoints import (
    FORMAT,
    Checkpoint,
    CheckpointError,
    checksum,
    list_checkpoints,
    newest_whole,
    remove,
    seal,
)


def made(folder: Path, step: int, sealed: bool = True, **changes: Any) -> Checkpoint:
    """A checkpoint of one file."""
    path = folder / f"step_{step:06d}"
    path.mkdir(parents=True)
    (path / "numbers").write_bytes(bytes(range(step % 256)))
    state = {"format": FORMAT, "step": step, "checksums": {"numbers": checksum(path / "numbers")}} | changes
    (path / "state.json").write_text(json.dumps(state | ({"seal": seal(state)} if sealed else {})))
    return Checkpoint(path, step)


def edit(checkpoint: Checkpoint, **changes: Any) -> None:
    """Change its state, not its seal."""
    file = checkpoint.path / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_state_that_is_not_what_was_written_is_refused(tmp_path: Path) -> None:
    checkpoint = made(tmp_path, 3)
    assert checkpoint.read_state()["step"] == 3
    edit(checkpoint, step=2)
    with pytest.raises(CheckpointError, match=r"step_000003: state\.json is damaged \(its checksum is wrong\)"):
        checkpoint.read_state()


def test_what_an_older_version_left_unsealed_is_read(tmp_path: Path) -> None:
    assert made(tmp_path, 3, sealed=False).read_state()["step"] == 3


def test_what_a_newer_version_wrote_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    made(tmp_path / "run" / "checkpoints", 1)
    made(tmp_path / "run" / "checkpoints", 2, format=FORMAT + 1)
    with pytest.raises(StoreError, match=rf"step_000002: format.*{FORMAT + 1}"):
        newest_whole(tmp_path / "run" / "checkpoints")


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"other")], ids=["gone", "changed"])
def test_a_file_that_is_gone_or_changed_makes_a_checkpoint_of_no_use(tmp_path: Path, spoil: Any) -> None:
    checkpoint = made(tmp_path, 3)
    spoil(checkpoint.path / "numbers")
    with pytest.raises(CheckpointError, match=r"numbers is missing or damaged"):
        checkpoint.read_state()


def test_who_asked_for_a_bad_one_is_told_of_the_others(tmp_path: Path) -> None:
    steps = [made(tmp_path, step) for step in (1, 2, 3)]
    edit(steps[1], step=9)
    with pytest.raises(CheckpointError, match=r"damaged .*; other checkpoints: --step 3, 1$"):
        steps[1].read_asked_state()


def test_a_checkpoint_is_what_has_the_name_of_one(tmp_path: Path) -> None:
    for step in (9, 999_999, 1_000_000):
        made(tmp_path, step)
    for name in ("step_000005.bak", ".step_000007.123", ".step_000008.gone", "step_12", "best"):
        shutil.copytree(tmp_path / "step_000009", tmp_path / name)
    assert [one.step for one in list_checkpoints(tmp_path)] == [1_000_000, 999_999, 9]


def test_no_part_of_one_that_is_removed_stays_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the trainer is killed on the way."""

    def half(path: Path) -> None:
        (path / "numbers").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", half)
    with pytest.raises(KeyboardInterrupt):
        remove(made(tmp_path, 3).path)
    assert list_checkpoints(tmp_path) == []
