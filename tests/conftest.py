"""What several tests need: a home of their own, a language model small enough to train in milliseconds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.hub.offline import LIBRARIES, VARIABLE
from tests.hub_server import Hub, serving

# Each worker of a parallel run has its share of the cores: threads that wait for others are many times slower.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = "What is the sum of two numbers? Answer with just the number. system user assistant plus minus times "


@pytest.fixture(autouse=True)
def connected_again() -> Iterator[None]:
    """A command that was told --offline inside a test says so to its whole process: it ends with the test."""
    before = {name: os.environ.get(name) for name in (VARIABLE, *LIBRARIES)}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture
def desk_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for runs and an empty place for one's own presets, for this process and those it starts."""
    home = tmp_path / "home"
    monkeypatch.setenv("AAPO_DESK_HOME", str(home))
    monkeypatch.setenv("AAPO_DESK_CONFIG", str(tmp_path / "settings"))
    return home


@pytest.fixture
def served_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, and an empty cache in ``tmp_path / "hf"``."""
    with serving(tmp_path / "hf", monkeypatch) as hub:
        yield hub


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer Llama (hidden size 64, 300 tokens), its tokenizer and a chat template.

    The same weights and tokens each time. ``<|im_end|>`` ends a text, ``<|pad|>`` fills up.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-model")
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces.train_from_iterator([WORDS] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
    )
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_config(tiny_model: Path) -> dict[str, Any]:
    """A configuration as a preset would hold it: the tiny model on sums, three quick steps on the CPU.

    It never answers right, so a second reward, for letters up to m, is what gives the groups differences to learn from.
    """
    return {
        "model": {"id": str(tiny_model), "device": "cpu", "quantization": "none"},
        "lora": {"r": 4, "alpha": 8},
        "task": {"source": "arithmetic", "held_out": 8, "max_prompt_tokens": 200},
        "rewards": [{"name": "math"}, {"name": "format", "options": {"pattern": "[a-m]"}}],
        "rollout": {"prompts_per_step": 2, "group_size": 4, "max_new_tokens": 6},
        "optimizer": {"learning_rate": 1e-3},
        "run": {"steps": 3, "checkpoint_every": 1},
        "evaluation": {"problems": 8},
    }
