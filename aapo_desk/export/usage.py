"""How to use an export in other tools: a few lines to copy."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aapo_desk.export.request import Form

NF4 = 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)'


@dataclass(frozen=True)
class Usage:
    """The name of a tool and the lines to type."""

    tool: str
    lines: tuple[str, ...]


def model_name(run: str, quant: str) -> str:
    """Return the name of a GGUF file, without its suffix, made from the name of its run."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", run).strip("-.") or "model"
    return f"{plain}-{quant}"


def usages(
    form: Form,
    folder: Path | str,
    base: str,
    revision: str | None,
    four_bit: bool,
    file: str | None,
    ends: Sequence[int] | None = None,
) -> list[Usage]:
    """Return the usage of an export for each tool.

    ``folder``: the export's folder. ``four_bit``: whether its base was quantized to 4 bits in training. ``file``: the
    name of the GGUF file. ``ends``: the tokens that end a completion, if the base does not name them all.
    """
    if form == "gguf":
        assert file is not None
        path = shlex.quote(str(Path(folder, file)))
        name = shlex.quote(file.removesuffix(".gguf").lower())
        return [
            Usage("llama.cpp", (f"llama-server -m {path} --jinja --temp 0",)),
            Usage(
                "Ollama",
                (f"ollama create {name} -f {shlex.quote(str(Path(folder, 'Modelfile')))}", f"ollama run {name}"),
            ),
        ]
    model = f'AutoModelForCausalLM.from_pretrained("{folder}", dtype="auto")'
    tokenizer = str(folder)
    imported = "AutoModelForCausalLM, AutoTokenizer"
    lines = [f"from transformers import {imported}"]
    if form == "adapter":
        options = f', revision="{revision}"' if revision else ""
        lines.insert(0, "from peft import PeftModel")
        if four_bit:
            lines[1] = f"from transformers import {imported}, BitsAndBytesConfig"
            lines.append(f"nf4 = {NF4}")
            options += ", quantization_config=nf4"
        lines.append(f'base = AutoModelForCausalLM.from_pretrained("{base}"{options}, dtype="auto")')
        model, tokenizer = f'PeftModel.from_pretrained(base, "{folder}")', base
    lines += [f"model = {model}", f'tokenizer = AutoTokenizer.from_pretrained("{tokenizer}")']
    if form == "adapter" and ends is not None:
        lines.append(f"model.generation_config.eos_token_id = {list(ends)}")
    other = (
        "export with --format gguf for these" if form == "merged" else "export with --format merged or gguf for these"
    )
    return [
        Usage("peft and transformers" if form == "adapter" else "transformers", tuple(lines)),
        Usage("llama.cpp, Ollama", (other,)),
    ]
