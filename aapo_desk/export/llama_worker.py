"""The llama.cpp worker: a process that can import cyllama but none of this program's other dependencies.

    python llama_worker.py quantise SOURCE TARGET FILE_TYPE THREADS
    python llama_worker.py ask < request.json > answers.json

A request names a GGUF file (``model``) and the number of ``threads``, and has token ids: either ``prompts`` and
``answers``, whose logits are written to the file ``logits`` (float32, [N, V]), or ``prompts`` and the maximum length
``longest``, to decode greedily. ``texts`` are tokenized. The answer also gives those of the tokens ``eos`` that end a
text, and the chat template.
"""

from __future__ import annotations

import array
import json
import sys
from pathlib import Path
from typing import Any


def quantise(source: str, target: str, file_type: int, threads: int) -> None:
    from cyllama.llama import llama_cpp

    settings = llama_cpp.LlamaModelQuantizeParams()
    settings.ftype = file_type
    settings.nthread = threads
    llama_cpp.model_quantize(source, target, settings)


def _model_class() -> Any:
    """Return cyllama's model class plus the attribute ``n_vocab``, which its context needs and 0.2.18 lacks."""
    from cyllama.llama import llama_cpp

    class Counted(llama_cpp.LlamaModel):  # type: ignore[misc] # cyllama has no types
        @property
        def n_vocab(self) -> int:
            return int(self.get_vocab().n_vocab)

    return Counted


class Model:
    """A GGUF file, loaded by llama.cpp on the CPU with a context for texts of up to ``longest`` tokens."""

    def __init__(self, path: str, longest: int, threads: int) -> None:
        from cyllama.llama import llama_cpp

        llama_cpp.disable_logging()
        llama_cpp.ggml_backend_load_all()
        settings = llama_cpp.LlamaModelParams()
        settings.n_gpu_layers = 0
        self.model = _model_class()(path, settings)
        self.vocab = self.model.get_vocab()
        context = llama_cpp.LlamaContextParams()
        context.n_ctx = context.n_batch = longest
        context.n_threads = context.n_threads_batch = threads
        self.context = llama_cpp.LlamaContext(self.model, context)
        self.batch = llama_cpp.LlamaBatch(n_tokens=longest, embd=0, n_seq_max=1)

    def _read(self, tokens: list[int], start: int, wanted: int) -> None:
        """Process tokens from position ``start``, and compute the logits after the last ``wanted`` of them."""
        self.batch.clear()
        for place, token in enumerate(tokens):
            self.batch.add(token, start + place, [0], place >= len(tokens) - wanted)
        self.context.decode(self.batch)

    def logits(self, prompt: list[int], answer: list[int]) -> list[list[float]]:
        """Return the logits that predict each token of the answer, [tokens, V]."""
        self.context.kv_cache_clear()
        read = [*prompt, *answer[:-1]]
        self._read(read, 0, len(answer))
        return [self.context.get_logits_ith(place) for place in range(len(prompt) - 1, len(read))]

    def answer(self, prompt: list[int], longest: int) -> tuple[list[int], bool]:
        """Return the greedy answer, including its end-of-sequence token, and whether it ended."""
        self.context.kv_cache_clear()
        self._read(prompt, 0, 1)
        tokens: list[int] = []
        while len(tokens) < longest:
            row = self.context.get_logits_ith(-1)
            tokens.append(max(range(len(row)), key=row.__getitem__))
            if self.vocab.is_eog(tokens[-1]):
                return tokens, True
            if len(tokens) < longest:
                self._read(tokens[-1:], len(prompt) + len(tokens) - 1, 1)
        return tokens, False

    def said(self, key: str) -> str | None:
        """Return the file's metadata value of a key, or None."""
        try:
            return str(self.model.meta_val_str(key))
        except ValueError:
            return None


def ask(request: dict[str, Any]) -> dict[str, Any]:
    prompts = request["prompts"]
    answers = request.get("answers") or [[]] * len(prompts)
    longest = max(
        len(prompt) + max(len(answer), request.get("longest", 0))
        for prompt, answer in zip(prompts, answers, strict=True)
    )
    model = Model(request["model"], longest + 8, request["threads"])
    vocabulary = 0
    if "logits" in request:
        with Path(request["logits"]).open("wb") as file:
            for prompt, answer in zip(prompts, answers, strict=True):
                for row in model.logits(prompt, answer):
                    array.array("f", row).tofile(file)
                    vocabulary = len(row)
    said = [model.answer(prompt, request["longest"]) for prompt in prompts] if "longest" in request else []
    return {
        "answers": said,
        "tokenised": [list(model.vocab.tokenize(text, False, True)) for text in request.get("texts", [])],
        "ends": [token for token in request.get("eos", []) if model.vocab.is_eog(token)],
        "vocabulary": vocabulary,
        "chat_template": model.said("tokenizer.chat_template"),
    }


if __name__ == "__main__":
    if sys.argv[1] == "quantise":
        quantise(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        json.dump(ask(json.load(sys.stdin)), sys.stdout)
