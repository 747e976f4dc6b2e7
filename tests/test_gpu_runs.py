"""Whole runs on a CUDA device, and the memory that they take there. Skipped where there is none."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aapo_desk import launch
from aapo_desk.config import RunConfig, resolve
from aapo_desk.models import sources
from aapo_desk.models.loading import load_policy
from aapo_desk.models.policy import Policy
from aapo_desk.models.room import shape_of
from aapo_desk.rollout import Sampling
from aapo_desk.rollout.trial import Workload
from aapo_desk.rollout.verify import verify_fast_paths
from aapo_desk.store import RunDirectory, RunReader, create_run, list_checkpoints
from aapo_desk.training.device.execution_plan import apply, choose
from aapo_desk.training.device.memory_probe import probe
from tests.determinism import TRAINER, WORKSPACE
from tests.training.in_process import train, weights
from tests.training.test_oom_retry import loaded, one_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
WORKSPACES = 160 * 2**20
"""Bytes: 32 MiB a stream on the largest cards, of which a run uses two, for cuBLAS and cuBLASLt each."""
PROMPTS = [[5 + place % 200 for place in range(length)] for length in (180, 250)]


@pytest.fixture
def on_cuda(tiny_config: dict[str, Any]) -> dict[str, Any]:
    model = tiny_config["model"] | {"device": "cuda", "quantization": "nf4"}
    return tiny_config | {"model": model, "run": {"steps": 4, "checkpoint_every": 2}}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_run_learns_by_its_fast_paths_and_goes_on(desk_home: Path, on_cuda: dict[str, Any], dtype: str) -> None:
    run = train(create_run(resolve(on_cuda, {"model.compute_dtype": dtype, "run.steps": 4}), dtype))
    reader = RunReader(run)
    choices = reader.facts()["choices"]
    assert {name: choices[name] for name in ("shadow_weights", "fixed_steps", "share_prompts", "row_mask")} == {
        "shadow_weights": 1, "fixed_steps": 1, "share_prompts": 1, "row_mask": 1,
    }  # fmt: skip
    delta = reader.poll()
    assert [event.kind for event in delta.events if event.kind in ("notice", "not_finite", "oom")] == []
    assert len(delta.metrics) == 4
    assert all(data["update_norm"] or not data["teaching"] for _, _, data in delta.metrics)
    assert [one.step for one in list_checkpoints(run.checkpoints)] == [4, 2]


def until(run: RunDirectory, wanted: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not wanted():
        assert time.monotonic() < deadline, run.log.read_text()[-2000:]
        time.sleep(0.02)


def test_a_trainer_that_is_killed_frees_the_gpu_and_its_run_ends_as_one_that_was_left_alone(
    desk_home: Path, on_cuda: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*WORKSPACE)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    config = resolve(on_cuda, {"run.steps": 8, "lora.dropout": 0.1})
    whole = launch.start(config, "whole", TRAINER)
    until(whole, lambda: launch.state(whole) == "finished")
    free = torch.cuda.mem_get_info()[0]
    killed = launch.start(config, "killed", TRAINER)
    for step in (3, 5):
        until(killed, lambda step=step: killed.read_status().get("step", 0) >= step)  # type: ignore[misc]
        os.kill(killed.read_status()["pid"], signal.SIGKILL)
        until(killed, lambda: launch.state(killed) == "crashed" and torch.cuda.mem_get_info()[0] >= free - 2**26)
        launch.resume(killed, TRAINER)
    until(killed, lambda: launch.state(killed) == "finished")
    assert [step for step, _, _ in RunReader(killed).poll().metrics] == list(range(1, 9))
    assert weights(killed, 8) == weights(whole, 8)


@pytest.fixture(scope="module")
def larger_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that its tensors, and not the allocator's rounding, are what is measured."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("larger")
    AutoTokenizer.from_pretrained(str(tiny_model)).save_pretrained(folder)
    sizes: dict[str, Any] = {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 8,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 64000,
        "tie_word_embeddings": True,
    }
    config = Qwen3Config(**sizes, bos_token_id=None, eos_token_id=2, pad_token_id=0)
    with torch.device("cuda"), torch.random.fork_rng(["cuda"]):
        torch.manual_seed(0)
        model: Any = Qwen3ForCausalLM(config)
        model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def probed(folder: Path, changes: dict[str, Any]) -> tuple[Policy, RunConfig, Any]:
    gc.collect()  # what another test left would be counted
    torch.cuda.empty_cache()
    given = {"model": {"id": str(folder), "device": "cuda", "quantization": "nf4"}, "task": {"source": "arithmetic"}}
    config = resolve(given, {"rollout.max_new_tokens": 256, "rollout.prompts_per_step": 4, **changes})
    policy = load_policy(config.model, config.lora, sources.resolve(config.model), seed=1)
    choices = choose(policy, config)
    apply(choices, policy)
    assert verify_fast_paths(policy, Workload(PROMPTS, 4, 100, 64), Sampling(), choices).refused == {}
    return policy, config, probe(policy, config, shape_of(policy), PROMPTS, choices, apply)


@pytest.mark.parametrize("weights", ["shadow", "adapter"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_estimate_holds_what_is_measured(larger_model: Path, weights: str, dtype: str) -> None:
    """It may say too much, by a quarter; too little by no more than the workspaces that cuBLAS keeps."""
    _, _, found = probed(larger_model, {"rollout.weights": weights, "model.compute_dtype": dtype})
    assert found.smaller == []
    for phase in ("rollout", "update"):
        measured, estimated = getattr(found.measured, phase), getattr(found.estimated, phase)
        assert 0.75 * estimated < measured < 1.05 * estimated + WORKSPACES, (
            phase,
            measured / 2**20,
            estimated / 2**20,
        )


def test_where_the_gpus_memory_ends_a_step_is_halved_and_its_gradient_the_same(
    desk_home: Path, on_cuda: dict[str, Any]
) -> None:
    changes = {
        "model.compute_dtype": "float32", "rollout.prompts_per_step": 8, "rollout.group_size": 32,
        "rollout.max_new_tokens": 64, "rollout.weights": "adapter", "rollout.capture": "off",
        "rewards": [{"name": "format", "options": {"pattern": "[a-m]"}}],
    }  # fmt: skip
    with loaded(on_cuda, changes, "whole") as (parts, _):
        parts.choices["token_budget"] = 1 << 20
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        whole, expected = one_step(parts)
        added = torch.cuda.max_memory_allocated() - before
        batch = parts.choices["batch_rows"]
        expected = expected.cpu()
    del parts
    torch.cuda.empty_cache()
    try:
        with loaded(on_cuda, changes, "halved") as (parts, store):
            parts.choices["token_budget"] = 1 << 20
            torch.cuda.empty_cache()
            limit = torch.cuda.memory_allocated() + int(0.6 * added)
            torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.mem_get_info()[1])
            halved, found = one_step(parts)
            smaller = [data["phase"] for _, data in store.events("oom")]
            assert parts.choices["token_budget"] < 1 << 20 or parts.choices["batch_rows"] < batch
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert smaller
    assert [one.completion for one in halved.record.samples] == [one.completion for one in whole.record.samples]
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
