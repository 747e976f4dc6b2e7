"""GGUF files by llama.cpp's own tools, out of the package index: a small model with a real tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from aapo_desk import presets
from aapo_desk.export import Request, choose
from aapo_desk.export.exporting import export
from aapo_desk.export.folders import describe_files, written_aside
from aapo_desk.export.work import prepare, verify, write
from aapo_desk.models import sources
from tests.export.runs import all_right, names, trained_run


@pytest.fixture
def config(tiny_config: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The tiny configuration with a two-layer Llama that has SmolLM2's tokenizer: the converter knows it by its tokens.

    Rows of 256 weights, since that is what a K-quant takes at once.
    """
    folder = tmp_path / "model"
    resolved = sources.resolve(presets.load("demo", {}).model, weights=False)
    tokenizer = AutoTokenizer.from_pretrained(resolved.path)
    tokenizer.save_pretrained(folder)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(shape)
    model.model.norm.weight.data.fill_(20.0)  # else no token is much likelier than another
    model.save_pretrained(folder)
    return tiny_config | {
        "lora": {"r": 4, "alpha": 1},
        "model": tiny_config["model"] | {"id": str(folder)},
        "task": tiny_config["task"] | {"system_prompt": "Add."},
    }


@pytest.mark.slow
def test_a_gguf_file_is_proved_by_llama_cpp_and_a_damaged_one_refused(
    desk_home: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    source = choose(trained_run(config, "sums", steps=(1,)), "best")
    record = export(Request(source, "gguf", tmp_path / "out", "q6_k"), all_right)

    assert names(tmp_path / "out") == {"sums-q6_k.gguf", "Modelfile", "README.md", "export.json"}
    assert [proof["what"] for proof in record["proofs"]] == ["the GGUF file in f16", *["the GGUF file in q6_k"] * 2]
    assert record["held_out"]["greedy"]["accuracy"] == 1.0
    modelfile = (tmp_path / "out" / "Modelfile").read_text()
    assert modelfile.startswith("FROM ./sums-q6_k.gguf\nTEMPLATE")
    assert 'PARAMETER stop "<|im_end|>"' in modelfile

    with written_aside(tmp_path / "other") as places:
        work, policy = prepare(Request(source, "gguf", tmp_path / "other"), places, print)
        write(work, policy)
        whole = tmp_path / "whole.gguf"
        shutil.copyfile(work.gguf, whole)
        data = whole.read_bytes()
        for damaged in (data[: len(data) // 2], data[:-200_000] + bytes(200_000)):
            work.gguf.write_bytes(damaged)
            assert verify(work).broken, "by its checksum"
            work.files = describe_files(places.aside)
            assert verify(work).broken, "by what llama.cpp makes of it"


@pytest.mark.slow
@pytest.mark.parametrize(("end", "known"), [("<|im_end|>", True), ("<gh_stars>", False)])
def test_an_end_that_only_the_template_writes_does_not_break_a_gguf_file(
    desk_home: Path, config: dict[str, Any], tmp_path: Path, end: str, known: bool
) -> None:
    folder = Path(config["model"]["id"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = tokenizer.pad_token = "<|endoftext|>"
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", end)
    tokenizer.save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((folder / name).read_text()) | {"eos_token_id": tokenizer.eos_token_id}
        (folder / name).write_text(json.dumps(settings))
    source = choose(trained_run(config, "sums", steps=(1,)), "best")
    record = export(Request(source, "gguf", tmp_path / "out", "f16"), None)
    assert record["broken"] == []
    assert f'PARAMETER stop "{end}"' in (tmp_path / "out" / "Modelfile").read_text()
    note = f"llama.cpp does not end an answer at {end} by itself: pass it as a stop text"
    assert record["notes"] == ([] if known else [note])
    assert (note in (tmp_path / "out" / "README.md").read_text()) == (not known)
