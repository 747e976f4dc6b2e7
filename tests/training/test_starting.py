"""A run that starts from an existing adapter: its reference is the base with that adapter, frozen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aapo_desk import checkpoint as checkpoints
from aapo_desk import launch
from aapo_desk.config import ConfigError, LoraConfig, ModelConfig, resolve
from aapo_desk.models import sources
from aapo_desk.models.loading import load_policy
from aapo_desk.models.policy import Policy
from aapo_desk.models.starting import start_from
from aapo_desk.rollout import Row, Sampling, decode, uniforms
from aapo_desk.store import RunDirectory, RunReader, create_run
from tests.policies import load_tiny
from tests.training.in_process import NOBODY, train

IDS = torch.tensor([[5, 6, 7, 8]])


def saved(folder: Path, policy: Policy, step: int = 3) -> Path:
    """Save a checkpoint's adapter in peft's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(policy.adapter_parameters().values())
    return checkpoints.save(folder, step, policy, optimizer, {}).adapter


def logits(policy: Policy) -> Tensor:
    with torch.no_grad():
        values: Tensor = policy.model(IDS).logits
    return values


def stir(policy: Policy) -> None:
    for parameter in policy.adapter_parameters().values():
        parameter.data = parameter.data + 0.05


def test_the_policy_begins_as_the_adapter_and_the_reference_stays_it(tiny_model: Path, tmp_path: Path) -> None:
    known = load_tiny(tiny_model)
    policy = load_tiny(tiny_model, trained=False)
    start_from(policy, saved(tmp_path, known))
    assert torch.equal(logits(policy), logits(known))
    stir(policy)
    moved = logits(policy)
    assert not torch.allclose(moved, logits(known))
    with policy.as_reference():
        assert torch.equal(logits(policy), logits(known))
    assert torch.equal(logits(policy), moved)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("shadow", [False, True])
def test_in_one_batch_each_side_gets_its_own_adapter(
    tiny_model: Path, tmp_path: Path, quantization: Any, shadow: bool
) -> None:
    known = load_tiny(tiny_model, quantization=quantization)
    policy = load_tiny(tiny_model, quantization=quantization, trained=False)
    start_from(policy, saved(tmp_path, known))
    stir(policy)
    if shadow:
        policy.use_shadow()
    prompts, rows = [[5, 6, 7], [20, 21]], [Row(prompt, adapter) for prompt in (0, 1) for adapter in (True, False)]
    numbers = uniforms(len(rows), 6, 3)
    mixed = decode(policy, prompts, rows, 6, Sampling(), numbers)
    policy.masks_rows = False  # each side alone, with the model's own forward
    alone = decode(policy, prompts, rows, 6, Sampling(), numbers)
    torch.testing.assert_close(mixed.logps, alone.logps, atol=1e-4, rtol=1e-4)
    base = decode(known, prompts, [Row(prompt, True) for prompt in (0, 1)], 6, Sampling(), numbers[[1, 3]])
    assert torch.equal(alone.tokens[[1, 3]], base.tokens)


def small(tiny_model: Path, **lora: Any) -> Policy:
    model = ModelConfig(id=str(tiny_model), device="cpu", quantization="none")
    return load_policy(model, LoraConfig(**{"r": 4, "alpha": 8} | lora), sources.resolve(model), seed=1)


def test_an_adapter_of_other_layers_or_of_another_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    every = saved(tmp_path / "every", load_tiny(tiny_model))
    query = small(tiny_model, targets=["q_proj"])
    with pytest.raises(ConfigError, match=r"the adapter has it and the run does not\); set lora\.targets to match"):
        start_from(query, every)
    with pytest.raises(ConfigError, match="the run has it and the adapter does not"):
        start_from(load_tiny(tiny_model), saved(tmp_path / "query", query))
    narrow = saved(tmp_path / "narrow", small(tiny_model, r=2))
    with pytest.raises(ConfigError, match=r"belongs to another model: .* has shape \[2, 64\], but .* \[4, 64\]"):
        start_from(load_tiny(tiny_model), narrow)


@pytest.fixture
def parent(desk_home: Path, tiny_config: dict[str, Any], tiny_model: Path) -> RunDirectory:
    """A run "known" with the checkpoints of steps 3 and 5, and "empty" without any."""
    known = create_run(resolve(tiny_config), "known")
    for step in (3, 5):
        saved(known.checkpoints, load_tiny(tiny_model), step)
    create_run(resolve(tiny_config), "empty")
    return known


@pytest.mark.parametrize(
    ("given", "step"),
    [("known", 5), ("known@3", 3), ("{}/checkpoints/step_000003", 3), ("{}/checkpoints/step_000005/adapter", 5)],
)
def test_an_adapter_is_found_by_its_folder_its_run_or_its_step(
    given: str, step: int, parent: RunDirectory, tiny_config: dict[str, Any]
) -> None:
    config = resolve(tiny_config, {"lora.start_from": given.format(parent.path)})
    assert launch.find_start(config) == parent.checkpoints / f"step_{step:06d}" / "adapter"


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no run": ({"lora.start_from": "nobody"}, {}, "lora.start_from = 'nobody': is neither a folder nor a run"),
    "no folder": ({"lora.start_from": "no/such"}, {}, "there is no such folder"),
    "no checkpoint yet": ({"lora.start_from": "empty"}, {}, "run empty has no checkpoint yet"),
    "a step not kept": ({"lora.start_from": "known@4"}, {}, "has no checkpoint of this step; it has: 3, 5"),
    "another rank": (
        {"lora.r": 8},
        {},
        r"lora\.r = 8: the adapter of lora.start_from has 4; use the same with: --set lora.r=4",
    ),
    "another scale": ({"lora.alpha": 16}, {}, r"lora\.alpha = 16: .* --set lora.alpha=8"),
    "no LoRA": ({}, {"peft_type": "IA3"}, "must be a LoRA adapter, not IA3"),
    "more than plain LoRA": ({}, {"use_dora": True}, "must be a plain LoRA adapter; this one has use_dora"),
    "another base": ({}, {"base_model_name_or_path": "owner/other"}, "was trained on owner/other, but this run's"),
    "no settings": ({}, {"": None}, "has no readable adapter_config.json"),
    "weights cut short": ({}, {"weights": b"half"}, r"damaged \(4 bytes; .*use another checkpoint's \(RUN@STEP\)"),
}


@pytest.mark.parametrize(("changes", "theirs", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_the_beginning_is_refused_before_a_run_exists(
    changes: dict[str, Any],
    theirs: dict[str, Any],
    said: str,
    parent: RunDirectory,
    tiny_config: dict[str, Any],
    desk_home: Path,
) -> None:
    settings = parent.checkpoints / "step_000005" / "adapter" / "adapter_config.json"
    if theirs.keys() == {""}:
        settings.unlink()
    elif "weights" in theirs:
        settings.with_name("adapter_model.safetensors").write_bytes(theirs["weights"])
    else:
        settings.write_text(json.dumps(json.loads(settings.read_text()) | theirs))
    with pytest.raises(ConfigError, match=said):
        launch.start(resolve(tiny_config, {"lora.start_from": "known"} | changes), command=NOBODY)
    assert len(list((desk_home / "runs").iterdir())) == 2


def test_a_run_from_an_adapter_says_so_and_needs_its_source_no_more(
    parent: RunDirectory, tiny_config: dict[str, Any]
) -> None:
    overrides = {"lora.start_from": "known@3", "run.steps": 2, "evaluation.problems": 0, "algorithm.reference": "bank"}
    run = launch.start(resolve(tiny_config, overrides), "from", command=NOBODY)
    shutil.rmtree(parent.path)
    train(run)
    messages = [event.data["message"] for event in RunReader(run).poll().events if event.kind == "notice"]
    assert [message for message in messages if "the reference is the base model with that adapter, frozen" in message]
    assert run.read_config().lora.start_from == f"{parent.checkpoints}/step_000003/adapter"
    fork = launch.fork(run, launch.kept_checkpoint(run, 1), launch.forked_config(run, 1, {}), command=NOBODY)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (fork.start_adapter / name).read_bytes() == (run.start_adapter / name).read_bytes()
