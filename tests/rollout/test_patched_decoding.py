"""A decoder that speaks as unsloth's does on a GPU: its cache goes in and out as keys and values by layer."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import LlamaModel

from aapo_desk.models.logprobs import can_share
from aapo_desk.rollout import Row, Sampling, can_be_fixed, decode, uniforms
from aapo_desk.rollout.trial import Workload
from aapo_desk.rollout.verify import check_backend
from tests.policies import load_tiny

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [20, 21]]
ROWS = [Row(prompt, adapter) for prompt in (0, 1) for adapter in (True, True, False)]
TOKENS = 12

own_forward: Any = LlamaModel.forward
CACHE = "cache" if "cache" in inspect.signature(own_forward).parameters else "past_key_values"


def in_tuples(
    self: Any,
    input_ids: Tensor | None = None,
    causal_mask: Tensor | None = None,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    past_key_values: tuple[tuple[Tensor, Tensor], ...] | None = None,
    use_cache: bool | None = None,
    **others: Any,
) -> Any:
    """The model's own forward, but for how it takes and gives its cache; in train mode without a mask."""
    others.pop(CACHE, None)  # the causal model hands on that there is none
    cache = DynamicCache(config=self.config) if use_cache else None
    for number, (keys, values) in enumerate(past_key_values or ()):
        assert cache is not None
        cache.update(keys.clone(), values.clone(), number)
    done = own_forward(
        self,
        input_ids=input_ids,
        attention_mask=None if self.training else attention_mask,
        position_ids=position_ids,
        use_cache=use_cache,
        **{CACHE: cache},
        **others,
    )
    if cache is not None:
        layers: list[Any] = cache.layers
        done.past_key_values = tuple((layer.keys, layer.values) for layer in layers)
    return done


def test_it_decodes_what_the_decoder_of_transformers_does(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_tiny(tiny_model)
    plain = decode(policy, PROMPTS, ROWS, TOKENS, Sampling(1.0), uniforms(len(ROWS), TOKENS, 0))
    assert not bool(plain.ended.all())
    monkeypatch.setattr(LlamaModel, "forward", in_tuples)
    policy.masks_rows = policy.own_update = False
    patched = decode(policy, PROMPTS, ROWS, TOKENS, Sampling(1.0), uniforms(len(ROWS), TOKENS, 0))
    assert torch.equal(patched.tokens, plain.tokens)
    torch.testing.assert_close(patched.logps, plain.logps, atol=1e-5, rtol=0)
    assert check_backend(policy, Workload(PROMPTS, 2, 12, 8), Sampling(1.0)) is None


def test_no_mask_of_ours_is_given_to_it(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_tiny(tiny_model)
    assert can_share(policy)
    monkeypatch.setattr(LlamaModel, "forward", in_tuples)
    assert not can_share(policy)
    assert not can_be_fixed(policy)
