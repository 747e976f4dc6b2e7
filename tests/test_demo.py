"""The main job on the real model, shortened: SmolLM2-135M out of its wheel, two steps, and its adapter used by peft."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from aapo_desk.store import RunReader, find_run

SHORT = ["run.steps=2", "rollout.prompts_per_step=2", "evaluation.problems=12", "evaluation.every=0"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_trains_the_real_model_and_peft_gives_its_answers(desk_home: Path) -> None:
    command = [sys.executable, "-m", "aapo_desk", "demo", "--headless", "--name", "short"]
    sets = [part for setting in SHORT for part in ("--set", setting)]
    done = subprocess.run([*command, *sets], capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step 1/2" in done.stdout
    assert "step 2/2" in done.stdout
    assert "difference" in done.stdout

    run = find_run("short")
    (measured,) = (event.data for event in RunReader(run).poll().events if event.kind == "probe")
    assert measured["measured"]["update"] == pytest.approx(measured["estimated"]["update"], rel=0.2)
    evaluations = {step: data for step, _, data in RunReader(run).poll().evaluations}
    assert evaluations[0]["greedy"]["readable"] >= 0.8
    adapter = run.checkpoints / "step_000002" / "adapter"
    assert greedy_answers(adapter, evaluations[2]["ids"]) == evaluations[2]["greedy"]["answers"]


def greedy_answers(adapter: Path, sums: list[str]) -> list[str]:
    """The answers as somebody without this package gets them: transformers, bitsandbytes and peft alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    causal: Any = AutoModelForCausalLM.from_pretrained(base, quantization_config=nf4, dtype=torch.float32)
    for module in causal.modules():
        # On some processors bitsandbytes would compute in bfloat16 (and answer a few in a hundred otherwise).
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    model: Any = PeftModel.from_pretrained(causal, str(adapter)).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    answers: list[str] = []
    for problem in sums:
        a, b = problem.split("+")
        messages = [
            {"role": "system", "content": "Answer with just the number. Example: 2 + 3 = 5"},
            {"role": "user", "content": f"{a} + {b} ="},
        ]
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False, return_tensors="pt"
        )
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        answers.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return answers
