"""Make an export: write it to a temporary folder, load it again, compare it with its source, and then rename it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aapo_desk import __version__
from aapo_desk.export.card import card
from aapo_desk.export.folders import FORMAT, RECORD, describe_files, keep, keep_broken, written_aside
from aapo_desk.export.modelfile import modelfile, turns_of
from aapo_desk.export.questions import Judge, held_out_accuracy
from aapo_desk.export.request import ExportError, Request
from aapo_desk.export.usage import usages
from aapo_desk.export.work import Verdict, Work, four_bit_drift, let_go, prepare, verify, write
from aapo_desk.export.writing import revision
from aapo_desk.store import write_atomically

Progress = Callable[[str], None]


class BrokenExportError(ExportError):
    """Raised if the written export is not correct. ``record`` says what is wrong; the folder is kept as NAME.broken."""

    def __init__(self, message: str, record: dict[str, Any]) -> None:
        super().__init__(message)
        self.record = record


def export(request: Request, judge: Judge | None, progress: Progress = lambda _: None) -> dict[str, Any]:
    """Make the export and return its record, which is saved in its folder and among the run's exports.

    Without a ``judge`` the held-out accuracy is not measured. Raises BrokenExportError if the export fails its checks.
    Other failures raise ExportError, ModelError, CheckpointError, ConfigError or RewardError and leave no files.
    """
    try:
        with written_aside(request.to) as places:
            work, policy = prepare(request, places, progress)
            write(work, policy)
            del policy
            let_go()
            drift = four_bit_drift(work)
            let_go()
            verdict = verify(work)
            verdict.proofs += [drift] if drift else []
            record = _record(work, verdict)
            if verdict.loaded and judge and not verdict.broken and work.questions.held_out:
                progress(f"evaluating it on {len(work.questions.held_out)} held-out problems")
                asked = work.questions
                record["held_out"] = held_out_accuracy(verdict.loaded, asked, request.source, judge)
            _describe(work, record)
            if verdict.broken:
                broken = keep_broken(places, request.to)
                _remember(request, record | {"path": str(broken)})
                message = f"broken, not exported: {'; '.join(verdict.broken)} (kept as {broken})"
                raise BrokenExportError(message, record | {"path": str(broken)})
            keep(places, request.to)
    except OSError as error:
        raise ExportError(f"{request.to} could not be written: {error}") from error
    record["path"] = str(request.to)
    _remember(request, record)
    return record


def _record(work: Work, verdict: Verdict) -> dict[str, Any]:
    request, base = work.request, work.base
    libraries = ("torch", "transformers", "peft", "bitsandbytes")
    source = request.source
    return {
        "format": FORMAT,
        "form": request.form,
        "quant": request.quant if request.form == "gguf" else None,
        "dtype": work.dtype,
        "run": source.run.id,
        "name": source.run.name,
        "step": source.step,
        "chosen": source.chosen,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"aapo-desk": __version__, **{name: version(name) for name in libraries}},
        "base": {
            "id": base.config.model.id,
            "path": base.resolved.name,
            "revision": revision(base.config.model, base.resolved),
            "four_bit": base.trained.quantization == "nf4",
            "ends": None if work.template_end is None else list(work.eos_ids),
        },
        "files": work.files,
        "proofs": [proof.as_json() for proof in verdict.proofs],
        "notes": verdict.notes,
        "broken": verdict.broken,
        "held_out": None,
    }


def _describe(work: Work, record: dict[str, Any]) -> None:
    """Write the README.md, for GGUF the Modelfile, and last the record, which this completes with all checksums."""
    request, folder = work.request, work.places.aside
    file = work.gguf.name if request.form == "gguf" else None
    base = record["base"]
    named = usages(request.form, request.to, base["path"], base["revision"], base["four_bit"], file, base["ends"])
    record["use"] = {usage.tool: list(usage.lines) for usage in named}
    if file is not None:
        (folder / "Modelfile").write_text(_modelfile(work, file), encoding="utf-8")
    (folder / "README.md").write_text(card(request.source, request.form, record, file), encoding="utf-8")
    record["files"] = describe_files(folder) | work.files
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _modelfile(work: Work, file: str) -> str:
    task = work.request.source.config.task
    messages = [{"role": "user", "content": work.questions.example.problem}]
    if task.system_prompt is not None:
        messages.insert(0, {"role": "system", "content": task.system_prompt})
    turns = turns_of(work.tokenizer, work.base.model.chat_template_options, messages)
    stops = [str(token) for token in work.tokenizer.convert_ids_to_tokens(list(work.eos_ids))]
    return modelfile(file, turns, task.system_prompt, stops)


def _remember(request: Request, record: dict[str, Any]) -> Path:
    """Save the record among the run's exports and return its path."""
    folder = request.source.run.exports
    folder.mkdir(exist_ok=True, mode=0o700)
    kind = request.label.replace(" ", "-")
    ending = "-broken" if record["broken"] else ""
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}-{kind}{ending}.json"
    write_atomically(path, json.dumps(record, indent=2))
    return path
