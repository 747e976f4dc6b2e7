"""The real unsloth beside transformers, in a process of its own: it has to be imported before transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from aapo_desk.launch.child import environment

SCRIPT = """
import json, os, sys
from aapo_desk.models import unsloth
unsloth.bring_in("cpu")
import torch
from aapo_desk.config import LoraConfig, ModelConfig
from aapo_desk.models import sources
from aapo_desk.models.loading import load_policy
from aapo_desk.models.logprobs import Pack, pack_logps
from aapo_desk.rollout import Row, Sampling, decode, uniforms
from aapo_desk.rollout.trial import Workload
from aapo_desk.rollout.verify import check_backend, verify_fast_paths

folder, quantization = sys.argv[1:]
model = ModelConfig(id=folder, device="cpu", quantization=quantization, compute_dtype="float32")
lora = LoraConfig(r=4, alpha=8)
one, other = (load_policy(model, lora, sources.resolve(model), 1, by) for by in ("transformers", "unsloth"))
ours, theirs = one.adapter_parameters(), other.adapter_parameters()
same = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
for name in ours:
    if "lora_B" in name:
        moved = 0.3 * torch.randn(ours[name].shape, generator=torch.Generator().manual_seed(2))
        ours[name].data, theirs[name].data = moved.clone(), moved.clone()
prompts, rows = [[5, 6, 7, 8], [20, 21]], [Row(prompt, adapter) for prompt in (0, 1) for adapter in (True, False)]
other.masks_rows = other.own_update = False
done = [decode(policy, prompts, rows, 8, Sampling(1.0), uniforms(4, 8, 0)) for policy in (one, other)]
packs = [Pack(prompts[0], [done[0].row(0), done[0].row(0)]), Pack(prompts[1], [done[0].row(2)])]
updates = [pack_logps(policy, packs, 8) for policy in (one, other)]
choices = {"row_mask": 0, "share_prompts": 1, "fixed_steps": 1}
print(json.dumps({
    "same_adapter": same,
    "same_tokens": torch.equal(done[0].tokens, done[1].tokens),
    "rollout": float((done[0].logps - done[1].logps).abs().max()),
    "update": float((updates[0] - updates[1]).abs().max()),
    "reason": check_backend(other, Workload(prompts, 2, 8, 8), Sampling(1.0)),
    "refused": verify_fast_paths(other, Workload(prompts, 2, 8, 8), Sampling(1.0), choices).refused,
    "left": os.listdir("."),
}))
"""


def unsloth_lacks() -> bool:
    try:
        metadata.version("unsloth")
    except metadata.PackageNotFoundError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.skipif(unsloth_lacks(), reason="unsloth is not installed: pip install 'aapo-desk[unsloth]'")
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_on_a_cpu_it_gives_the_log_probs_of_the_transformers_backend(
    tiny_model: Path, tmp_path: Path, quantization: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, str(tiny_model), quantization],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same_adapter"]
    assert found["same_tokens"]
    assert found["rollout"] < 1e-4
    assert found["update"] < 1e-4
    assert found["reason"] is None
    assert found["refused"] == {}
    assert found["left"] == []
