"""Every way to break a fast path that a GPU run could hide is found, in 16 bits too; sound paths pass.

How many seeds each is tried with: ``AAPO_DESK_SEEDS`` (default 2; 20 sabotaged and 200 sound were tried by hand).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from aapo_desk.config import LoraConfig, ModelConfig
from aapo_desk.models import rows, sources
from aapo_desk.models.loading import load_policy
from aapo_desk.models.logprobs import can_share
from aapo_desk.models.policy import Policy
from aapo_desk.models.rows import RowMask
from aapo_desk.rollout import Sampling, can_be_fixed
from aapo_desk.rollout.cache import RowCache
from aapo_desk.rollout.captured import FixedLayer
from aapo_desk.rollout.decoding import _Batch
from aapo_desk.rollout.trial import Workload
from aapo_desk.rollout.verify import Verdict, verify_fast_paths
from tests.test_families import FAMILIES, make_family

SEEDS = range(int(os.environ.get("AAPO_DESK_SEEDS", "2")))
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [20, 21, 90, 91, 92], [30, 31, 32, 33, 34, 35], [40, 50, 60, 70]]
DTypeName = Literal["float32", "bfloat16"]
PRECISIONS: list[tuple[DTypeName, int]] = [("float32", 16), ("bfloat16", 16), ("bfloat16", 32)]


def load(folder: Path, dtype: DTypeName, r: int) -> Policy:
    model = ModelConfig(id=str(folder), device="cpu", quantization="nf4", compute_dtype=dtype)
    return load_policy(model, LoraConfig(r=r, alpha=2 * r), sources.resolve(model), seed=1)


def verify(policy: Policy, seed: int, tokens: int, static: bool) -> Verdict:
    """As a run would, with every path that the model allows; the policy is as new before."""
    policy.shadow, policy.masks_rows, policy.own_update = None, True, True
    choices = {"shadow_weights": 1, "fixed_steps": int(static), "share_prompts": int(can_share(policy))}
    workload = Workload(PROMPTS, group_size=4, max_new_tokens=tokens, batch_rows=32)
    return verify_fast_paths(policy, workload, Sampling(), choices, seed)


Patch = pytest.MonkeyPatch
right_apply, right_forward, right_trained, right_pair = RowMask.apply, rows._forward, rows._trained, rows._computing
right_keep, right_select, right_adapter = FixedLayer.keep, RowCache.batch_select_indices, _Batch._adapter


def adapter_off_for_the_policy(patch: Patch, policy: Policy) -> None:
    patch.setattr(RowMask, "apply", lambda self, output: output * 0)


def adapter_on_for_the_reference(patch: Patch, policy: Policy) -> None:
    patch.setattr(RowMask, "apply", lambda self, output: output)


def sides_swapped(patch: Patch, policy: Policy) -> None:
    patch.setattr(RowMask, "apply", RowMask.apply_to_others)


def sides_swapped_after_the_first_token(patch: Patch, policy: Policy) -> None:
    """Only where rows decode: each layer by itself is right."""
    patch.setattr(_Batch, "_adapter", lambda self, rows: ~right_adapter(self, rows))


def adapter_scaled_by_half(patch: Patch, policy: Policy) -> None:
    patch.setattr(RowMask, "apply", lambda self, output: 0.5 * right_apply(self, output))


def weights_of_another_adapter(patch: Patch, policy: Policy) -> None:
    def other(layer: Any, down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        down, up = right_pair(layer, down, up)
        return down, up.detach()[torch.randperm(len(up), generator=torch.Generator().manual_seed(7))]

    patch.setattr(rows, "_computing", other)


def one_layer_missing(patch: Patch, policy: Policy) -> None:
    missing = rows.adapted_layers(policy.model)[5]

    def forward(layer: Any, *rest: Any) -> Tensor:
        return layer.base_layer(rest[-1]) if layer is missing else right_forward(layer, *rest)

    patch.setattr(rows, "_forward", forward)


def a_stale_copy_of_the_adapter(patch: Patch, policy: Policy) -> None:
    """As if the copy that products are made with had been made before the last update."""
    generator = torch.Generator().manual_seed(1009)  # not one that stirs the adapter
    copies = {}
    for layer in rows.adapted_layers(policy.model):
        down, up = rows._weights(layer)
        before = torch.randn(up.shape, generator=generator) / up.shape[1]
        copies[layer] = right_pair(layer, down.detach().clone(), before)
    patch.setattr(rows, "_computing", lambda layer, down, up: copies[layer])


def a_row_continues_on_another_cache_after_a_shrink(patch: Patch, policy: Policy) -> None:
    """The first row left has the cache of a row with another prompt."""

    def wrong(self: Any, indices: Tensor, select: Callable[[Any, Tensor], None], size: int) -> None:
        if len(indices) < size:
            indices = indices.clone()
            indices[0] = indices[2]
        select(self, indices)

    def growing(self: RowCache, indices: Tensor) -> None:
        layer: Any = self.layers[0]
        keys = getattr(layer, "keys", None)
        wrong(self, indices, right_select, len(indices) if keys is None else len(keys))

    patch.setattr(RowCache, "batch_select_indices", growing)
    patch.setattr(FixedLayer, "keep", lambda self, living: wrong(self, living, right_keep, self.rows))


def the_update_has_half_the_scale(patch: Patch, policy: Policy) -> None:
    def half(layer: Any, weight: Any, pair: Any, inputs: Tensor) -> Tensor:
        scale = layer.scaling[rows.ADAPTER]
        layer.scaling[rows.ADAPTER] = scale / 2
        try:
            return right_trained(layer, weight, pair, inputs)
        finally:
            layer.scaling[rows.ADAPTER] = scale

    patch.setattr(rows, "_trained", half)


def the_update_misses_a_layer(patch: Patch, policy: Policy) -> None:
    missing = rows.adapted_layers(policy.model)[5]

    def forward(layer: Any, weight: Any, pair: Any, inputs: Tensor) -> Tensor:
        output = right_trained(layer, weight, pair, inputs)
        return layer.base_layer(inputs) + 0 * output if layer is missing else output

    patch.setattr(rows, "_trained", forward)


SABOTAGES: Mapping[str, Callable[[Patch, Policy], None]] = {
    one.__name__: one
    for one in (
        adapter_off_for_the_policy,
        adapter_on_for_the_reference,
        sides_swapped,
        sides_swapped_after_the_first_token,
        adapter_scaled_by_half,
        weights_of_another_adapter,
        one_layer_missing,
        a_stale_copy_of_the_adapter,
        a_row_continues_on_another_cache_after_a_shrink,
        the_update_has_half_the_scale,
        the_update_misses_a_layer,
    )
}


@pytest.fixture(scope="module")
def attentive_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with larger weights in its attention: what comes before a token matters, as in a trained model."""
    import transformers

    folder = tmp_path_factory.mktemp("attentive")
    transformers.AutoTokenizer.from_pretrained(str(tiny_model)).save_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(str(tiny_model))
    for name, parameter in model.named_parameters():
        if "self_attn" in name:
            parameter.data *= 4
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=PRECISIONS, ids=lambda given: f"{given[0]} r {given[1]}")
def policy(request: pytest.FixtureRequest, attentive_model: Path) -> Policy:
    return load(attentive_model, *request.param)


@pytest.mark.slow
@pytest.mark.parametrize("name", SABOTAGES)
def test_a_broken_path_is_found(policy: Policy, name: str) -> None:
    for seed in SEEDS:
        for static in (False, True):
            if static and "after_the_first_token" in name:
                continue  # static-shape steps have no such function
            with pytest.MonkeyPatch.context() as patch:
                SABOTAGES[name](patch, policy)
                verdict = verify(policy, seed, 20, static)
            assert verdict.refused, (name, seed, static, verdict.figures)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_sound_paths_pass_on_every_family(tiny_model: Path, tmp_path: Path, family: str) -> None:
    folder = make_family(family, tiny_model, tmp_path)
    for dtype, r in PRECISIONS:
        policy = load(folder, dtype, r)
        for seed in SEEDS:
            verdict = verify(policy, seed, 20, can_be_fixed(policy))
            assert verdict.refused == {}, (dtype, r, seed, verdict.figures)


@pytest.mark.parametrize("name", ["adapter_off_for_the_policy", "adapter_on_for_the_reference", "sides_swapped"])
def test_in_16_bits_a_rollout_by_the_wrong_side_is_found(tiny_model: Path, name: str) -> None:
    policy = load(tiny_model, "bfloat16", 16)
    with pytest.MonkeyPatch.context() as patch:
        SABOTAGES[name](patch, policy)
        verdict = verify(policy, 0, 12, static=False)
    assert verdict.choices["row_mask"] == 0
    assert verify(policy, 0, 12, static=False).refused == {}
