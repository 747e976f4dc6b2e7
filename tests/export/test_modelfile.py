"""Ollama's Modelfile: the chat template said in Go, or left to the GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from aapo_desk.export.modelfile import modelfile, turns_of

CHATML = (
    "{% for m in messages %}"
    "{% if loop.first and m.role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if thinking is defined and not thinking %}<think>\n\n"
    "</think>\n\n{% endif %}{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[answer]{% endif %}"
)
COUNTING = "{% for m in messages %}{{ loop.index }} {{ m.role }}: {{ m.content }}\n{% endfor %}> "
ASKED = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1 + 1 ="}]


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


def test_a_template_of_turns_is_said_in_go(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    turns = turns_of(tokenizer, {}, ASKED)
    assert turns is not None
    assert turns.go_template() == (
        '{{ range .Messages }}{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n{{ end }}{{ end }}'
        "<|im_start|>assistant\n"
    )
    assert turns.system == "Be kind."


def test_its_options_count_where_the_answer_begins_only(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    turns = turns_of(tokenizer, {"thinking": False}, ASKED)
    assert turns is not None
    assert turns.answer == "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert turns.around["assistant"][0] == "<|im_start|>assistant\n"


@pytest.mark.parametrize("added", [False, True])
def test_a_first_token_stays_in_the_template_unless_the_tokenizer_adds_it_itself(tokenizer: Any, added: bool) -> None:
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.chat_template = CHATML
    if added:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
        )
    turns = turns_of(tokenizer, {}, ASKED)
    assert turns is not None
    assert turns.around["system"][0] == ("system\n" if added else "<|im_start|>system\n")


@pytest.mark.parametrize("template", [NO_SYSTEM, COUNTING, None])
def test_what_cannot_be_said_is_left_to_the_gguf_file(tokenizer: Any, template: str | None) -> None:
    tokenizer.chat_template = template
    assert turns_of(tokenizer, {}, ASKED) is None
    text = modelfile("sums.gguf", None, "Add.", ["<|im_end|>"])
    assert 'TEMPLATE "' not in text
    assert 'SYSTEM """Add."""' in text


def test_the_modelfile_has_the_runs_system_prompt_else_the_templates_own(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    turns = turns_of(tokenizer, {}, ASKED)
    lines = modelfile("sums-q8_0.gguf", turns, None, ["<|im_end|>", 'a"b']).splitlines()
    assert lines[0] == "FROM ./sums-q8_0.gguf"
    assert 'SYSTEM """Be kind."""' in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert 'PARAMETER stop "a\\"b"' in lines
    assert 'SYSTEM """Add."""' in modelfile("sums.gguf", turns, "Add.", [])
