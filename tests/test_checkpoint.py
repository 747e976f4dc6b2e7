"""Checkpoints: whole or absent, and bit for bit what was saved."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aapo_desk import checkpoint as checkpoints
from aapo_desk.checkpoint import CheckpointError
from aapo_desk.models.policy import Policy
from tests.policies import load_tiny
from tests.spoiled import put_nan

CHOICES = {"token_budget": 64, "batch_rows": 8, "threads": 2}


def optimizer_of(policy: Policy, fused: bool = False) -> torch.optim.Optimizer:
    return torch.optim.AdamW(policy.adapter_parameters().values(), lr=1e-2, weight_decay=0.0, fused=fused)


def train(policy: Policy, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        policy.model(torch.tensor([[3, 4, 5 + step]])).logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def weights(policy: Policy) -> list[torch.Tensor]:
    return [value.detach().clone() for value in policy.adapter_parameters().values()]


@pytest.mark.parametrize("fused", [False, True])
def test_training_goes_on_from_a_checkpoint_bit_for_bit(tiny_model: Path, tmp_path: Path, fused: bool) -> None:
    policy = load_tiny(tiny_model)
    optimizer = optimizer_of(policy, fused)
    train(policy, optimizer, 3)
    saved = checkpoints.save(tmp_path, 3, policy, optimizer, CHOICES)
    train(policy, optimizer, 2)

    other = load_tiny(tiny_model, trained=False)
    other_optimizer = optimizer_of(other, fused)
    assert checkpoints.restore(saved, saved.read_state(), other, other_optimizer) == CHOICES
    train(other, other_optimizer, 2)

    for one, two in zip(weights(policy), weights(other), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(("fused", "counted_on"), [(True, "meta"), (False, "cpu")])
def test_what_the_optimizer_keeps_goes_to_the_device_where_it_wants_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fused: bool, counted_on: str
) -> None:
    """A fused one wants its count of steps beside the weights: on a GPU it refuses to go on without. No weights lie on
    the device "meta", but it is another one than the CPU."""
    policy = load_tiny(tiny_model)
    optimizer = optimizer_of(policy)
    train(policy, optimizer, 1)
    saved = checkpoints.save(tmp_path, 1, policy, optimizer, CHOICES)
    elsewhere = {name: torch.nn.Parameter(value.to("meta")) for name, value in policy.adapter_parameters().items()}
    monkeypatch.setattr(policy, "adapter_parameters", lambda: elsewhere)
    other = optimizer_of(policy, fused)
    checkpoints.restore(saved, saved.read_state(), policy, other)
    assert len(other.state) == len(elsewhere)
    for kept in other.state.values():
        devices = {name: value.device.type for name, value in kept.items()}
        assert devices == {"step": counted_on, "exp_avg": "meta", "exp_avg_sq": "meta"}


def test_what_is_remembered_of_the_problems_lies_in_the_state(tiny_model: Path, tmp_path: Path) -> None:
    policy = load_tiny(tiny_model)
    remembered = {"place": 9, "streaks": {"train-3": 2}}
    saved = checkpoints.save(tmp_path, 3, policy, optimizer_of(policy), CHOICES, difficulty=remembered)
    assert saved.read_state()["difficulty"] == remembered


def test_peft_loads_the_adapter_as_it_lies(tiny_model: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    policy = load_tiny(tiny_model)
    saved = checkpoints.save(tmp_path, 1, policy, optimizer_of(policy), CHOICES)
    settings = json.loads((saved.adapter / "adapter_config.json").read_text())
    assert settings["inference_mode"]
    base = AutoModelForCausalLM.from_pretrained(settings["base_model_name_or_path"], dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, str(saved.adapter)).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, policy.model(ids).logits)
    assert not policy.model.peft_config["default"].inference_mode


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tiny_model: Path, tmp_path: Path) -> None:
    policy = load_tiny(tiny_model)
    for step in (1, 2):
        checkpoints.save(tmp_path, step, policy, optimizer_of(policy), CHOICES)
    damaged = tmp_path / "step_000002" / "adapter" / "adapter_model.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    found = checkpoints.newest_whole(tmp_path)
    assert found is not None
    checkpoint, state, refused = found
    assert (checkpoint.step, state["step"]) == (1, 1)
    assert "adapter_model.safetensors is missing or damaged" in refused[0]
    (tmp_path / "step_000001" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="no checkpoint can be used"):
        checkpoints.newest_whole(tmp_path)


@pytest.mark.parametrize("where", ["adapter", "optimiser"])
def test_what_is_not_finite_is_never_saved(tiny_model: Path, tmp_path: Path, where: str) -> None:
    policy = load_tiny(tiny_model)
    optimizer = optimizer_of(policy)
    train(policy, optimizer, 1)
    parameter = list(policy.adapter_parameters().values())[3]
    (parameter.data if where == "adapter" else optimizer.state[parameter]["exp_avg_sq"])[0, 0] = float("inf")
    with pytest.raises(CheckpointError, match=r"step 1 was not saved: .*layers.0.* holds NaN or infinity"):
        checkpoints.save(tmp_path, 1, policy, optimizer, CHOICES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["adapter/adapter_model.safetensors", "optimizer.safetensors"])
def test_a_checkpoint_that_holds_nan_is_passed_over_although_its_checksums_are_right(
    tiny_model: Path, tmp_path: Path, where: str
) -> None:
    policy = load_tiny(tiny_model)
    optimizer = optimizer_of(policy)
    train(policy, optimizer, 1)
    for step in (1, 2):
        saved = checkpoints.save(tmp_path, step, policy, optimizer, CHOICES)
    name = put_nan(saved, where)
    saved.read_state()
    found = checkpoints.newest_whole(tmp_path)
    assert found is not None
    assert found[0].step == 1
    assert found[2] == [f"{saved.path}: {name} holds NaN or infinity"]
    assert checkpoints.newest_whole(tmp_path, before=1) is None


def test_half_written_checkpoints_do_not_count_and_go_with_the_next(tiny_model: Path, tmp_path: Path) -> None:
    policy = load_tiny(tiny_model)
    half = tmp_path / ".step_000009.123"
    half.mkdir()
    assert checkpoints.newest_whole(tmp_path) is None
    checkpoints.save(tmp_path, 1, policy, optimizer_of(policy), CHOICES)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001"]


def test_all_is_on_the_disk_before_its_name_and_the_name_before_anybody_is_told(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, then the folders that name them, then the rename, then the folder of the new name."""
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def flushed(descriptor: int) -> None:
        fsync(descriptor)
        done.append(named(Path(f"/proc/self/fd/{descriptor}").readlink()))

    def renamed(path: Path, target: Path) -> Path:
        done.append(f"{named(path)} -> {named(target)}")
        return rename(path, target)

    def named(path: Path) -> str:
        return str(path.relative_to(tmp_path)).replace(f".{os.getpid()}", "")

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "rename", renamed)
    policy = load_tiny(tiny_model)
    saved = checkpoints.save(tmp_path, 1, policy, optimizer_of(policy), CHOICES)
    aside = ".step_000001"
    files = {f"{aside}/{path.relative_to(saved.path)}" for path in saved.path.rglob("*") if path.is_file()}
    assert (set(done[:4]), done[4:]) == (files, [f"{aside}/adapter", aside, f"{aside} -> step_000001", "."])


def test_a_write_that_finds_no_room_leaves_nothing_behind(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_tiny(tiny_model)
    settings = policy.model.peft_config["default"]
    before = settings.inference_mode

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for place, name in ((type(settings), "save_pretrained"), (checkpoints, "flush")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, full)
            with pytest.raises(OSError, match="No space left"):
                checkpoints.save(tmp_path, 1, policy, optimizer_of(policy), CHOICES)
        assert list(tmp_path.iterdir()) == []
        assert settings.inference_mode == before


def test_the_room_that_is_asked_for_holds_the_tensors(tiny_model: Path, tmp_path: Path) -> None:
    policy = load_tiny(tiny_model)
    optimizer = optimizer_of(policy)
    train(policy, optimizer, 1)
    saved = checkpoints.save(tmp_path, 1, policy, optimizer, CHOICES)
    kept = load_file(saved.adapter / checkpoints.ADAPTER_FILE) | load_file(saved.path / checkpoints.OPTIMIZER_FILE)
    tensors = sum(tensor.nbytes for tensor in kept.values() if tensor.ndim)
    assert checkpoints.room(policy) == tensors + checkpoints.DESCRIPTION
    taken = sum(path.stat().st_size for path in saved.path.rglob("*") if path.is_file())
    assert taken <= checkpoints.room(policy)


def test_another_models_checkpoint_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    policy = load_tiny(tiny_model)
    optimizer = optimizer_of(policy)
    saved = checkpoints.save(tmp_path, 1, policy, optimizer, CHOICES)
    tensors = load_file(saved.adapter / checkpoints.ADAPTER_FILE)
    other = {key.replace("layers.0", "layers.9"): value for key, value in tensors.items()}
    save_file(other, saved.adapter / checkpoints.ADAPTER_FILE, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"step_000001 does not fit this model: .*layers\.9"):
        checkpoints.load_adapter(saved, policy)


def test_the_newest_and_the_best_are_kept(tmp_path: Path, tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    for step in range(1, 6):
        checkpoints.save(tmp_path, step, policy, optimizer_of(policy), CHOICES)
    checkpoints.prune(tmp_path, keep=2, always={1})
    assert [checkpoint.step for checkpoint in checkpoints.list_checkpoints(tmp_path)] == [5, 4, 1]


def test_only_safetensors_and_json_are_written(tmp_path: Path, tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    optimizer = optimizer_of(policy)
    train(policy, optimizer, 1)
    saved = checkpoints.save(tmp_path, 1, policy, optimizer, CHOICES)
    names = sorted(str(path.relative_to(saved.path)) for path in saved.path.rglob("*") if path.is_file())
    assert names == [
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    assert all(torch.isfinite(value).all() for value in load_file(saved.path / "optimizer.safetensors").values())
