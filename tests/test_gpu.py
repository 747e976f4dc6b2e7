"""The same engine on a CUDA device, against its plain path there. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch

from aapo_desk.algorithms import aapo
from aapo_desk.models.logprobs import Pack, pack_logps
from aapo_desk.models.rows import adapted_layers
from aapo_desk.rollout import Row, Sampling, decode, uniforms
from aapo_desk.rollout.captured import LEAST_PART
from aapo_desk.rollout.trial import Workload
from aapo_desk.rollout.verify import verify_fast_paths
from aapo_desk.training.forward import Rollout
from aapo_desk.training.loss_scaling import LossScale
from aapo_desk.training.micro_batches import Cost
from aapo_desk.training.update import update
from tests.policies import load_tiny
from tests.test_families import FAMILIES, make_family

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [20, 21]]
GROUP = 4


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_rollout_and_update_agree_and_the_adapter_moves(tiny_model: Path, quantization: str) -> None:
    policy = load_tiny(tiny_model, "float32", quantization, device="cuda")  # type: ignore[arg-type]
    rows = [Row(prompt, adapter) for adapter in (True, False) for prompt in range(2) for _ in range(GROUP)]
    done = decode(policy, PROMPTS, rows, 8, Sampling(), uniforms(len(rows), 8, 0))
    ours = range(2 * GROUP)
    completions = [done.row(row) for row in ours]
    prompts = [PROMPTS[row // GROUP] for row in ours]
    with torch.no_grad():
        dense = pack_logps(policy, [Pack(p, [c]) for p, c in zip(prompts, completions, strict=True)], 8)
        shared = pack_logps(policy, [Pack(PROMPTS[i], completions[i * GROUP : (i + 1) * GROUP]) for i in (0, 1)], 8)
    torch.testing.assert_close(dense.cpu(), done.logps[: 2 * GROUP], atol=1e-3, rtol=0)
    torch.testing.assert_close(shared, dense, atol=1e-3, rtol=0)

    optimizer = torch.optim.AdamW(policy.adapter_parameters().values(), weight_decay=0.0)
    rewards = torch.tensor([[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    reference = torch.tensor([[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    moved = update(
        policy, optimizer, aapo.make(), Rollout(prompts, completions, 1.0, GROUP), rewards, reference,
        rate=1e-3, max_grad_norm=1.0, token_budget=256, cost=Cost(1, 0),
    )  # fmt: skip
    assert moved.applied
    assert moved.update_norm > 0


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("half", ["bfloat16", "float16"])
@pytest.mark.parametrize("shadow", [False, True])
def test_an_update_in_16_bits_has_the_gradient_of_a_float32_one(
    tiny_model: Path, quantization: Literal["none", "nf4"], half: Literal["bfloat16", "float16"], shadow: bool
) -> None:
    rewards = torch.tensor([[1.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    rollout = Rollout(PROMPTS[:1] * GROUP, [[20, 21, 22, 2], [23, 2], [24, 25, 26, 27], [28]], 1.0, GROUP)
    gradients = []
    dtypes: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32", half)
    for dtype in dtypes:
        policy = load_tiny(tiny_model, dtype, quantization, device="cuda")
        if shadow:
            policy.use_shadow()
        with policy.training():
            assert dtype == "float32" or all("forward" in vars(layer) for layer in adapted_layers(policy.model))
        scale = LossScale.for_policy(policy)
        assert (scale is not None) == (dtype == "float16")
        moved = update(
            policy, torch.optim.AdamW(policy.adapter_parameters().values(), fused=True), aapo.make(), rollout, rewards,
            torch.zeros_like(rewards), rate=1e-3, max_grad_norm=1e9, token_budget=256, scale=scale,
        )  # fmt: skip
        assert moved.applied
        gradients.append(torch.cat([value.grad.flatten() for value in policy.adapter_parameters().values()]))  # type: ignore[union-attr]
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 0.05


@pytest.mark.parametrize("adapter", [True, False])
def test_greedy_rows_equal_plain_generation(tiny_model: Path, adapter: bool) -> None:
    policy = load_tiny(tiny_model, "float32", device="cuda")
    done = decode(policy, PROMPTS[:1], [Row(0, adapter, greedy=True)], 8, Sampling(), uniforms(1, 8, 0))
    ids = torch.tensor(PROMPTS[:1], device="cuda")
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": list(policy.eos_ids)}
    with torch.no_grad():
        if adapter:
            plain = policy.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
        else:
            with policy.as_reference():
                plain = policy.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
    assert done.row(0) == plain[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_fast_path_holds_its_proof(tiny_model: Path, dtype: Literal["float32", "bfloat16", "float16"]) -> None:
    policy = load_tiny(tiny_model, dtype, "nf4", device="cuda", trained=False)
    choices = {"shadow_weights": 1, "fixed_steps": 1, "share_prompts": 1}
    assert verify_fast_paths(policy, Workload(PROMPTS, 4, 100, 64), Sampling(), choices).refused == {}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_captured_steps_give_what_growing_ones_do(
    tiny_model: Path,
    tmp_path: Path,
    family: str,
    dtype: Literal["float32", "bfloat16", "float16"],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In 16 bits two likely tokens may change places, and all after them: there, only log-probs of the same tokens."""
    if dtype == "float16" and family.startswith(("gemma", "qwen3_5")):
        pytest.skip("float16 does not carry this family, which is refused in it")
    policy = load_tiny(make_family(family, tiny_model, tmp_path), dtype, "nf4", device="cuda")
    policy.use_shadow()
    rows = [Row(prompt, adapter) for adapter in (True, False) for prompt in range(2) for _ in range(GROUP)]
    tokens = LEAST_PART + 16  # so that another graph takes over, which sees more of the cache
    numbers = uniforms(len(rows), tokens, 0)
    growing, captured = (
        decode(policy, PROMPTS, rows, tokens, Sampling(), numbers, fixed=fixed) for fixed in (False, True)
    )
    assert not [record for record in caplog.records if "captured" in record.message]
    if dtype == "float32":
        assert torch.equal(captured.tokens, growing.tokens)
        torch.testing.assert_close(captured.logps, growing.logps, atol=1e-3, rtol=0)
    else:
        same = (captured.tokens == growing.tokens).cumprod(1).bool()
        assert bool(same[:, 0].all())
        assert float((captured.logps - growing.logps)[same].abs().mean()) < 0.02


def test_rows_that_end_leave_a_captured_batch(tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    policy = load_tiny(tiny_model, "float32", "nf4", device="cuda")
    policy.eos_ids = tuple(range(2, 40))
    rows = [Row(prompt, adapter) for adapter in (True, False) for prompt in range(2) for _ in range(4 * GROUP)]
    numbers = uniforms(len(rows), 64, 0)
    growing, captured = (decode(policy, PROMPTS, rows, 64, Sampling(), numbers, fixed=fixed) for fixed in (False, True))
    assert int(growing.lengths.min()) < 16 < int(growing.lengths.max())
    assert not [record for record in caplog.records if "captured" in record.message]
    assert torch.equal(captured.tokens, growing.tokens)
    assert torch.equal(captured.ended, growing.ended)
