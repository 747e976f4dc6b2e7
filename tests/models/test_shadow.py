"""Shadow weights and the forward of our own around them, against peft's."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from aapo_desk.config import LoraConfig, ModelConfig
from aapo_desk.models import logprobs, shadow, sources
from aapo_desk.models.loading import load_policy
from aapo_desk.models.logprobs import Pack, pack_logps
from aapo_desk.models.policy import Policy
from aapo_desk.models.rows import adapted_layers
from aapo_desk.models.shadow import FourBitWeight, ShadowWeight
from tests.policies import load_tiny

PACKS = [Pack([5, 6, 7], [[20, 21, 22, 2], [23]]), Pack([13], [[24, 25]])]
DENSE = [Pack(pack.prompt, [completion]) for pack in PACKS for completion in pack.completions]
CASES: list[tuple[Literal["float32", "float64"], Literal["nf4", "none"], float]] = [
    ("float64", "none", 1e-12),
    ("float32", "none", 1e-4),
    ("float32", "nf4", 1e-4),
]


def computed(policy: Policy) -> list[Tensor]:
    """Log-probs, then the gradient of a sum of them."""
    policy.model.zero_grad()
    with policy.training():
        values = pack_logps(policy, DENSE, 4)
        (values * torch.arange(1, values.numel() + 1).reshape(values.shape)).sum().backward()
    return [values.detach(), *(p.grad.clone() for p in policy.adapter_parameters().values() if p.grad is not None)]


@pytest.mark.parametrize(("dtype", "quantization", "tolerance"), CASES)
def test_an_update_by_shadow_weights_equals_pefts(
    tiny_model: Path,
    dtype: Literal["float32", "float64"],
    quantization: Literal["nf4", "none"],
    tolerance: float,
) -> None:
    policy = load_tiny(tiny_model, dtype, quantization)
    policy.own_update = False
    plain = computed(policy)
    policy.own_update = True
    policy.use_shadow()
    shadowed = computed(policy)
    assert len(plain) == 1 + len(policy.adapter_parameters())
    for one, other in zip(shadowed, plain, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance * float(other.abs().max()), rtol=0)


def test_an_update_by_weights_made_at_each_use_equals_pefts(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_tiny(tiny_model, quantization="nf4")
    policy.own_update = False
    plain = computed(policy)
    policy.own_update = True
    made = []
    right = FourBitWeight.backward

    def backward(self: FourBitWeight, gradient: Tensor) -> Tensor:
        made.append(self)
        return right(self, gradient)

    monkeypatch.setattr(FourBitWeight, "backward", backward)
    ours = computed(policy)
    # Nothing wants a gradient of what goes into the first layer's queries, keys and values.
    assert len(made) == len(adapted_layers(policy.model)) - 3
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * float(other.abs().max()), rtol=0)


@pytest.mark.parametrize("way", ["4 bits", "plain", "shadow"])
def test_products_in_16_bits_give_the_gradient_of_float32_as_nearly_as_pefts_in_float32_do(
    tiny_model: Path, way: Literal["4 bits", "plain", "shadow"]
) -> None:
    """The layers' own rounding is far larger than that of the adapter's products."""
    quantization: Literal["nf4", "none"] = "none" if way == "plain" else "nf4"

    def gradient(dtype: Literal["float32", "bfloat16"], ours: bool) -> Tensor:
        policy = load_tiny(tiny_model, dtype, quantization)
        policy.own_update = ours
        if way == "shadow" and ours:
            policy.use_shadow()
        with policy.training():
            assert all(("forward" in vars(layer)) == ours for layer in adapted_layers(policy.model))
        _, *gradients = computed(policy)
        assert {gradient.dtype for gradient in gradients} == {torch.float32}
        return torch.cat([gradient.flatten() for gradient in gradients])

    exact = gradient("float32", ours=way != "plain")
    error, pefts = (float((gradient("bfloat16", ours) - exact).norm() / exact.norm()) for ours in (True, False))
    assert error < 0.05
    assert error < 1.3 * pefts, pefts


def test_a_run_that_began_before_our_own_update_without_shadows_still_uses_its_shadows(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    policy.own_update = False
    with policy.training():
        assert not any("forward" in vars(layer) for layer in adapted_layers(policy.model))
    policy.use_shadow()
    with policy.training():
        assert all("forward" in vars(layer) for layer in adapted_layers(policy.model))


def test_no_weight_keeps_the_file_mapped_that_it_was_read_from(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model, quantization="nf4")
    assert policy.causal.num_parameters() > 0
    assert str(tiny_model) not in Path("/proc/self/maps").read_text()


def test_dropout_is_left_to_peft(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw for draw: so the rows are as long with shadows as without."""
    monkeypatch.setattr(logprobs, "even_length", lambda rows, longest: longest)
    model = ModelConfig(id=str(tiny_model), device="cpu", quantization="none")
    policy = load_policy(model, LoraConfig(r=4, alpha=8, dropout=0.5), sources.resolve(model), seed=1)
    for name, parameter in policy.adapter_parameters().items():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    results = []
    for shadowed in (False, True):
        if shadowed:
            policy.use_shadow()
        torch.manual_seed(3)
        results.append(computed(policy))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_afterwards_the_layers_are_pefts_own_again_even_after_an_error(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    policy.use_shadow()
    layers = adapted_layers(policy.model)
    for inside in (policy.training, policy.adapter_on_rows):
        with contextlib.suppress(RuntimeError), inside():
            assert all("forward" in vars(layer) for layer in layers)
            raise RuntimeError
    assert not any("forward" in vars(layer) for layer in layers)
    assert not policy.model.training


@pytest.mark.parametrize("shape", [(1, 40), (67, 40), (3, 43, 40), (0, 40)])
@pytest.mark.parametrize("copied", [1 << 21, 0])
def test_a_product_with_packed_weights_is_that_of_the_plain_ones_for_any_number_of_rows(
    shape: tuple[int, ...], copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "COPIED_AT_MOST", copied)
    weight, bias, inputs = torch.randn(48, 40), torch.randn(48), torch.randn(shape)
    packed = ShadowWeight.of(weight)
    output = packed.linear(inputs, bias)
    torch.testing.assert_close(output, torch.nn.functional.linear(inputs, weight, bias))
    torch.testing.assert_close(packed.backward(output), output @ weight)


@pytest.mark.parametrize("copied", [1 << 21, 0])
def test_ever_new_numbers_of_rows_are_multiplied_as_few(copied: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "COPIED_AT_MOST", copied)
    by_onednn, numbers = shadow._by_onednn, set[int]()

    def counting(inputs: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        numbers.add(len(inputs))
        return by_onednn(inputs, packed, bias)

    monkeypatch.setattr(shadow, "_by_onednn", counting)
    packed, inputs = ShadowWeight.of(torch.randn(48, 40)), torch.randn(512, 40)
    for rows in range(257, 513):
        assert packed.linear(inputs[:rows], None).shape == (rows, 48)
    assert len(numbers) <= 18


SCRIPT = """
import torch
from aapo_desk.models.shadow import ShadowWeight
from aapo_desk.training.device.allocator import freed_at_once, held_mb

weights = [ShadowWeight.of(torch.randn(size, 64)) for size in (32, 64, 96, 128, 160, 192, 224, 256)]
inputs = torch.randn(1 << 13, 64)
with freed_at_once():
    before = held_mb(torch.device("cpu"))
    for octave in range(8, 13):
        for rows in range(1 << octave, 2 << octave, 1 << octave - 4):
            for weight in weights:
                weight.linear(inputs[:rows], None)
print(held_mb(torch.device("cpu")) - before)
"""


CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


@pytest.mark.slow
def test_products_that_have_not_come_for_long_leave_memory() -> None:
    """Keep 64 of 640 products, in either cache. Limits are read once: each time in a process of its own."""
    unset = {name: value for name, value in os.environ.items() if name not in CACHES}
    few, *more = (
        subprocess.run(
            [sys.executable, "-c", SCRIPT], env=unset | limit, capture_output=True, text=True, timeout=120, check=True
        )
        for limit in ({}, *({name: "1024"} for name in CACHES))
    )
    assert all(float(few.stdout) < float(one.stdout) - 10 for one in more)  # 35 MiB, 190 where one keeps them all
