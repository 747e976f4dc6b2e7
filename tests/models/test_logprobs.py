"""Log-probs of completions against the model's own forward, one row at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit

from aapo_desk import memory
from aapo_desk.models.logprobs import Pack, head_logps, pack_logps
from aapo_desk.models.policy import Policy
from aapo_desk.rollout import Row, Sampling, decode, uniforms
from tests.policies import load_tiny

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]
COMPLETIONS = [[20, 21, 22, 2], [23], [24, 25]]
DENSE = [Pack(prompt, [completion]) for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_they_equal_the_models_own_forward(tiny_model: Path, temperature: float) -> None:
    policy = load_tiny(tiny_model, "float64")
    with torch.no_grad():
        values = pack_logps(policy, DENSE, 6, temperature)
        for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
            logits = policy.model(torch.tensor([prompt + completion])).logits[0].double() / temperature
            expected = logits.log_softmax(1)[range(len(prompt) - 1, len(prompt) + len(completion) - 1), completion]
            torch.testing.assert_close(values[row, : len(completion)], expected, atol=1e-9, rtol=0)
            assert not values[row, len(completion) :].any()


def test_the_head_in_chunks_changes_neither_values_nor_gradients(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_tiny(tiny_model, "float64")
    gradients = []
    for at_once in (1 << 25, 3 * 300):
        monkeypatch.setitem(memory.LOGITS_AT_ONCE, "cpu", at_once)
        policy.model.zero_grad()
        values = pack_logps(policy, DENSE, 4)
        values.sum().backward()
        gradients.append([p.grad.clone() for p in policy.adapter_parameters().values() if p.grad is not None])
    assert len(gradients[0]) == len(policy.adapter_parameters())
    for whole, chunked in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, chunked, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(("dtype", "most"), [("float64", 1e-12), ("float32", 1e-5), ("bfloat16", 0.02)])
@pytest.mark.parametrize("shadow", [False, True])
def test_a_plain_head_gives_the_gradient_of_autograd(
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: Literal["float64", "float32", "bfloat16"],
    most: float,
    shadow: bool,
) -> None:
    policy = load_tiny(tiny_model, dtype)
    if shadow:
        policy.use_shadow()
    assert policy.head_is_plain
    hidden = torch.randn(7, policy.causal.config.hidden_size, generator=torch.Generator().manual_seed(0))
    results = []
    for plain in (True, False):
        monkeypatch.setattr(Policy, "head_is_plain", plain)
        leaf = (3 * hidden).to(policy.causal.dtype).requires_grad_()
        values = head_logps(policy, leaf, torch.tensor([0, 5, 9, 9, 2, 1, 30]), 0.7)
        (values * torch.arange(7)).sum().backward()
        assert leaf.grad is not None
        results.append((values.detach(), leaf.grad))
    (values, slope), (expected, by_autograd) = results
    torch.testing.assert_close(values, expected, atol=most, rtol=0)
    assert float((slope - by_autograd).norm() / by_autograd.norm()) < most


@pytest.mark.parametrize("setting", ["logits_scaling", "final_logit_softcapping"])
def test_a_head_that_bends_its_logits_is_not_plain(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    policy = load_tiny(tiny_model)
    monkeypatch.setattr(policy.causal.config, setting, 2.0, raising=False)
    assert not policy.head_is_plain


def test_completions_behind_one_prompt_equal_the_dense_rows(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model, "float64")
    prompts = [[5, 6, 7, 8], [9, 10]]
    completions = [[20, 21, 22, 2], [23], [24, 25], [26, 27, 28], [29, 2]]
    shared = [Pack(prompts[0], completions[:3]), Pack(prompts[1], completions[3:])]
    dense = [Pack(pack.prompt, [completion]) for pack in shared for completion in pack.completions]
    results = []
    for packs in (shared, dense):
        policy.model.zero_grad()
        values = pack_logps(policy, packs, 4, temperature=0.8)
        (values * torch.arange(values.numel()).reshape(values.shape)).sum().backward()
        results.append((values, [p.grad.clone() for p in policy.adapter_parameters().values() if p.grad is not None]))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-9, rtol=0)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        # Norms compute in float32 whatever the model's type, so gradients agree to its rounding.
        torch.testing.assert_close(one, other, atol=1e-6 * float(other.abs().max()), rtol=0)


def test_a_rollout_leaves_the_gradient_of_four_bit_weights_as_it_was(tiny_model: Path) -> None:
    """bitsandbytes would repack the weights at the first forward without gradient, on processors that have bfloat16."""
    policy = load_tiny(tiny_model, quantization="nf4")
    results = []
    for _ in range(2):
        policy.model.zero_grad()
        values = pack_logps(policy, DENSE, 4)
        values.sum().backward()
        gradients = [p.grad.clone() for p in policy.adapter_parameters().values() if p.grad is not None]
        results.append([values.detach(), *gradients])
        decode(policy, PROMPTS, [Row(0), Row(1, adapter=False)], 3, Sampling(), uniforms(2, 3, 0))
    for before, after in zip(*results, strict=True):
        assert torch.equal(before, after)


def test_four_bit_weights_compute_in_the_compute_dtype(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model, quantization="nf4")
    layer = policy.causal.model.layers[0].mlp.up_proj.base_layer
    inputs = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    with torch.no_grad():
        torch.testing.assert_close(layer(inputs), inputs @ weight.T, atol=1e-5, rtol=1e-5)


def test_the_gradient_behind_shared_prompts_is_the_same_to_the_last_bit_each_time(tiny_model: Path) -> None:
    """Several completions' first tokens hang on one place of the prompt, where their gradients are added up."""
    policy = load_tiny(tiny_model)
    generator = torch.Generator().manual_seed(0)
    packs = [Pack([5, 6, 7, 8], torch.randint(3, 290, (800, 1), generator=generator).tolist())]
    results = []
    for _ in range(12):
        policy.model.zero_grad()
        pack_logps(policy, packs, 1).sum().backward()
        results.append([p.grad.clone() for p in policy.adapter_parameters().values() if p.grad is not None])
    for again in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(again, results[0], strict=True))
