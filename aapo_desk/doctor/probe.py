"""One tiny, real training step: a random model is created, loaded, sampled from and updated, as in a run.

Before the step, every fast path that a run may choose on this device is compared with the plain path, as at the start
of a run.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from aapo_desk.algorithms import aapo
from aapo_desk.config import LoraConfig, ModelConfig
from aapo_desk.doctor.facts import Probe
from aapo_desk.models import sources
from aapo_desk.models.loading import load_policy
from aapo_desk.models.policy import Policy
from aapo_desk.rollout import Row, Sampling, can_be_fixed, decode, uniforms
from aapo_desk.rollout.trial import Workload
from aapo_desk.rollout.verify import verify_fast_paths
from aapo_desk.training.forward import Rollout
from aapo_desk.training.loss_scaling import LossScale
from aapo_desk.training.micro_batches import Cost
from aapo_desk.training.update import Update, update

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [20, 21]]
GROUP, TOKENS, VOCABULARY = 4, 8, 256

PATHS = ("shadow_weights", "row_mask", "own_update", "fixed_steps", "share_prompts")
"""The fast paths that are compared, in the order in which a run verifies them."""


def probe(quantization: str) -> Probe:
    """Create a model, compare the fast paths and train one step, on the device that a run would choose.

    ``quantization``: nf4 or none. Exceptions of the libraries propagate.
    """
    with tempfile.TemporaryDirectory(prefix="aapo-desk-doctor-") as folder:
        make_model(Path(folder))
        model = ModelConfig.model_validate({"id": folder, "quantization": quantization})
        policy = load_policy(model, LoraConfig(r=4, alpha=8), sources.resolve(model), seed=1)
        paths = compare(policy)
        began = time.perf_counter()
        scale = LossScale.for_policy(policy)
        done = train(policy, scale)
        seconds = time.perf_counter() - began
    if not done.applied:
        return Probe(error="the loss or the gradient was not finite")
    if not done.update_norm:
        return Probe(error="the adapter did not move")
    return Probe(
        device=str(policy.device),
        dtype=str(policy.causal.dtype).removeprefix("torch."),
        quantization=quantization,
        seconds=seconds,
        grad_norm=done.grad_norm,
        update_norm=done.update_norm,
        loss_scale=scale.factor if scale else None,
        paths=paths,
    )


def make_model(folder: Path) -> None:
    """Save a random two-layer Llama with a tokenizer of ``VOCABULARY`` words."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {"<pad>": 0, "<end>": 1} | {f"w{number}": number for number in range(2, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)


def compare(policy: Policy) -> dict[str, str | None]:
    """Compare each fast path that this device supports with the plain path.

    Returns None for a path that agrees, else how it differs. The comparison runs twice, with and without dequantized
    weights, because a run computes some layers differently with them. Afterwards the policy has none.
    """
    captured = policy.device.type == "cuda" and can_be_fixed(policy)
    found: dict[str, str | None] = {}
    for shadow in (0, 1):
        asked = dict.fromkeys(PATHS, 1) | {"shadow_weights": shadow, "fixed_steps": int(captured)}
        workload = Workload(PROMPTS, GROUP, TOKENS, len(PROMPTS) * GROUP * 2)
        verdict = verify_fast_paths(policy, workload, Sampling(), asked)
        for name in PATHS:
            if asked[name]:
                found[name] = verdict.refused.get(name) or found.get(name)
    policy.shadow = None
    return found


def train(policy: Policy, scale: LossScale | None) -> Update:
    """Run a rollout of policy and reference, invent rewards, and update once. Retries a step that overflows float16."""
    rows = [Row(prompt, adapter) for adapter in (True, False) for prompt in range(len(PROMPTS)) for _ in range(GROUP)]
    done = decode(policy, PROMPTS, rows, TOKENS, Sampling(), uniforms(len(rows), TOKENS, 0))
    ours = range(len(PROMPTS) * GROUP)
    rollout = Rollout([PROMPTS[row // GROUP] for row in ours], [done.row(row) for row in ours], 1.0, GROUP, done.logps)
    rewards = torch.tensor([[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    reference = torch.tensor([[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    optimizer = torch.optim.AdamW(policy.adapter_parameters().values(), weight_decay=0.0, fused=True)
    for _ in range(8):
        result = update(
            policy, optimizer, aapo.make(), rollout, rewards, reference,
            rate=1e-3, max_grad_norm=1.0, token_budget=256, cost=Cost(1, 0), scale=scale,
        )  # fmt: skip
        if result.applied or scale is None:
            break
    return result
