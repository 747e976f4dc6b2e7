"""Making the archive from parts; if one part cannot be read, the others are still included."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sqlite3
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aapo_desk import __version__, launch
from aapo_desk.bundle.privacy import Privacy, environment
from aapo_desk.doctor.facts import LIBRARIES
from aapo_desk.doctor.looking import installed, place, system
from aapo_desk.hardware import graphics
from aapo_desk.store import RunDirectory, RunReader, SampleReader

STEPS = 500
"""The number of last steps whose metrics are included."""
EVENTS = 5000
SNAPSHOTS = 600
SAMPLED_STEPS = 20
LOG_LINES, LOG_BYTES = 5000, 1 << 20
MOST_FILES = 2000
MORE_LIBRARIES = ("unsloth", "safetensors", "tokenizers", "huggingface_hub", "numpy", "sympy", "math-verify", "trl")


class BundleError(RuntimeError):
    """Raised if the archive cannot be written; the message says why."""


@dataclass(frozen=True)
class Bundle:
    """A written archive. ``files``: the size of each part in bytes; ``problems``: a line for each missing part."""

    path: Path
    files: Mapping[str, int]
    problems: Sequence[str]


def file_name(run: RunDirectory) -> str:
    return f"aapo-desk-{run.id}.zip"


def make(run: RunDirectory, target: Path, with_samples: bool = False) -> Bundle:
    """Write the archive of a run, which may be running, crashed or damaged. Raises BundleError."""
    privacy = Privacy(texts=with_samples)
    written: dict[str, str] = {}
    problems: list[str] = []
    for name, part in _parts(run, privacy, with_samples).items():
        try:
            written[name] = part()
        except Exception as error:  # noqa: BLE001 - Reading a damaged run may fail in any way; keep the other parts.
            problems.append(privacy.text(f"{name} is missing: {' '.join(str(error).split()) or type(error).__name__}"))
    written = {"README.txt": _readme(run, written, problems, with_samples), **written}
    _write(target, written)
    return Bundle(target, {name: len(text.encode(errors="replace")) for name, text in written.items()}, problems)


def _parts(run: RunDirectory, privacy: Privacy, with_samples: bool) -> dict[str, Callable[[], str]]:
    """Return a function for each part, by file name.

    Events come first, since texts that are cut from them are then cut from the later parts too.
    """
    reader = RunReader(run)

    def document(value: Any) -> str:
        return json.dumps(privacy.value(value), indent=2, ensure_ascii=False) + "\n"

    def lines(values: Sequence[Any]) -> str:
        return "".join(json.dumps(privacy.value(value), ensure_ascii=False) + "\n" for value in values)

    parts: dict[str, Callable[[], str]] = {
        "events.jsonl": lambda: lines([asdict(event) for event in reader.events(EVENTS)]),
        "state.json": lambda: document(_state(run)),
        "machine.json": lambda: document(_machine(run, privacy)),
        "config.json": lambda: document(_read(run.config)),
        "meta.json": lambda: document(_read(run.meta)),
        "status.json": lambda: document(_status(run)),
        "record.json": lambda: document(reader.facts()),
        "metrics.jsonl": lambda: lines([_step(*row) for row in reader.overview(1, STEPS).metrics]),
        "evaluations.json": lambda: document(_evaluations(reader)),
        "system.jsonl": lambda: lines([data for _, data in reader.system(most=SNAPSHOTS)]),
        "files.json": lambda: document(_files(run)),
    }
    if with_samples:
        parts["samples.jsonl"] = lambda: lines(_samples(run))
    return parts | {"train.log": lambda: privacy.text(_log(run))}


def _read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _state(run: RunDirectory) -> dict[str, Any]:
    return {
        "run": run.id,
        "state": launch.state(run),
        "reason": launch.reason(run),
        "bundled": time.time(),
        "bundled_by": __version__,
    }


def _status(run: RunDirectory) -> Any:
    """Return the status without the machine's name, stating only whether it was this machine."""
    status = _read(run.status)
    if "host" in status:
        status["host"] = "this machine" if status["host"] == platform.node() else "another machine"
    return status


def _machine(run: RunDirectory, privacy: Privacy) -> dict[str, Any]:
    seen = asdict(graphics())
    del seen["holders"]  # These are the user's other programs.
    return {
        "system": asdict(system()),
        "graphics": seen,
        "versions": {name: installed(name) for name in ("aapo-desk", *LIBRARIES, *MORE_LIBRARIES)},
        "sqlite": sqlite3.sqlite_version,
        "run_folder": asdict(place(run.path)),
        "environment": environment(privacy),
    }


def _step(step: int, when: float, metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {"step": step, "time": when, **metrics}


def _evaluations(reader: RunReader) -> list[dict[str, Any]]:
    """Return the evaluations without the data of each problem."""
    found = []
    for step, name, data in reader.overview(1, 1).evaluations:
        for side in data.values():
            if isinstance(side, dict):
                side.pop("scores", None)
                side.pop("answers", None)
        data.pop("ids", None)
        found.append({"step": step, "name": name, **data})
    return found


def _samples(run: RunDirectory) -> list[dict[str, Any]]:
    """Return the completions of the last ``SAMPLED_STEPS`` steps with stored samples."""
    reader = SampleReader(run)
    span = reader.stored_span()
    if span is None:
        return []
    steps = range(max(span.first, span.last - SAMPLED_STEPS + 1), span.last + 1)
    return [asdict(sample) for step in steps for sample in reader.samples(step)]


def _files(run: RunDirectory) -> dict[str, Any]:
    """Return the size in bytes and the permissions of the run directory's files, by name."""
    found = {}
    for path in sorted(run.path.rglob("*"))[:MOST_FILES]:
        stat = path.lstat()
        found[str(path.relative_to(run.path))] = {"bytes": stat.st_size, "mode": oct(stat.st_mode & 0o777)}
    return found


def _log(run: RunDirectory) -> str:
    """Return the end of the log. Raises OSError if there is none."""
    run.log.stat()
    return "\n".join(RunReader(run).log_tail(LOG_LINES, LOG_BYTES)) + "\n"


def _readme(run: RunDirectory, parts: Mapping[str, str], problems: Sequence[str], with_samples: bool) -> str:
    left_out = (
        "Prompts and completions are included, as requested with --with-samples."
        if with_samples
        else "Prompts, completions and answers are left out (--with-samples includes them)."
    )
    lines = [
        f"Run {run.id}, collected by aapo-desk {__version__} on {time.strftime('%Y-%m-%d %H:%M:%S %z')}.",
        f"{left_out} Tokens are removed, and the home folder's path is written as ~.",
        "train.log contains whatever your reward function or a library wrote to it: check it before sending.",
        "",
        *parts,
    ]
    if problems:
        lines += ["", "Parts that could not be read:", *problems]
    return "\n".join(lines) + "\n"


def _write(target: Path, parts: Mapping[str, str]) -> None:
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        aside.touch(mode=0o600)
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in parts.items():
                archive.writestr(name, text.encode(errors="replace"))
        aside.replace(target)
    except OSError as error:
        raise BundleError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
