"""The fast paths on the real model, SmolLM2-135M in NF4, against its own forward: to 1e-4 in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor

from aapo_desk import presets
from aapo_desk.models import sources
from aapo_desk.models.loading import load_policy
from aapo_desk.models.logprobs import Pack, pack_logps
from aapo_desk.models.policy import Policy
from aapo_desk.rollout import Row, Sampling, decode, uniforms

QUESTIONS = ["What is 3 + 4?", "Tom has 12 apples and gives 5 to Ann. How many has he left, and how do you know?"]
GROUP, TOKENS, TEMPERATURE = 2, 10, 0.8
ROWS = [Row(prompt, adapter) for adapter in (True, False) for prompt in range(len(QUESTIONS)) for _ in range(GROUP)]


@pytest.fixture(scope="module")
def policy() -> Policy:
    """With an adapter that has moved: otherwise policy and reference would be alike."""
    config = presets.load("demo", {"model.device": "cpu", "model.compute_dtype": "float32"})
    loaded = load_policy(config.model, config.lora, sources.resolve(config.model), seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in loaded.adapter_parameters().items():
        if "lora_B" in name:
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator)
    return loaded


def prompts(policy: Policy) -> list[list[int]]:
    return [
        policy.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        for question in QUESTIONS
    ]


@contextmanager
def weights(policy: Policy, shadow: bool) -> Iterator[None]:
    if shadow:
        policy.use_shadow()
    try:
        yield
    finally:
        policy.shadow = None


@torch.no_grad()
def own_logps(policy: Policy, prompt: list[int], completion: list[int], temperature: float) -> Tensor:
    """By the model's own forward, one row alone."""
    logits = policy.model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1] / temperature
    logps: Tensor = logits.log_softmax(1).gather(1, torch.tensor(completion)[:, None]).squeeze(1)
    return logps


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shadow", [False, True], ids=["adapter", "shadow"])
def test_rollout_and_update_have_the_real_models_log_probs(policy: Policy, shadow: bool) -> None:
    asked = prompts(policy)
    with weights(policy, shadow):
        done = decode(policy, asked, ROWS, TOKENS, Sampling(TEMPERATURE), uniforms(len(ROWS), TOKENS, 3))
        packs = [
            Pack(prompt, [done.row(GROUP * number + row) for row in range(GROUP)])
            for number, prompt in enumerate(asked)
        ]
        alone = [Pack(pack.prompt, [completion]) for pack in packs for completion in pack.completions]
        with policy.training(), torch.no_grad():
            shared_logps = pack_logps(policy, packs, TOKENS, TEMPERATURE)
            dense_logps = pack_logps(policy, alone, TOKENS, TEMPERATURE)
    for number, row in enumerate(ROWS):
        completion = done.row(number)
        with nullcontext() if row.adapter else policy.as_reference():
            own = own_logps(policy, asked[row.prompt], completion, TEMPERATURE)
        ours = [done.logps[number]] + ([shared_logps[number], dense_logps[number]] if row.adapter else [])
        for logps in ours:
            torch.testing.assert_close(logps[: len(completion)].float(), own, atol=1e-4, rtol=0)
    assert int(done.lengths.sum()) > 30
