"""The initial adapter of a run (``lora.start_from``): finding it, validating it, and copying it into the run's folder.

``models.starting`` checks that its layers match the model's, once the model has been loaded.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from aapo_desk.config import ConfigError, Problem, RunConfig, user_path
from aapo_desk.models.ids import wheel_model
from aapo_desk.models.tensors import damage
from aapo_desk.store import RunDirectory, find_run, list_checkpoints, read_json

SETTING = "lora.start_from"
SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
UNUSUAL = (
    "use_dora", "use_rslora", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias", "layer_replication",
    "trainable_token_indices", "target_parameters",
)  # fmt: skip
"""Features of peft beyond plain LoRA, which are not supported here."""

QUANTISED = ("-unsloth-bnb-4bit", "-bnb-4bit")
"""Name endings of the 4-bit copies of a hub model."""


def find_start(config: RunConfig) -> Path | None:
    """Return the folder of the initial adapter, in peft's layout; None if the run starts with a new adapter.

    Raises ConfigError if there is no such adapter or it does not fit this run.
    """
    given = config.lora.start_from
    if given is None:
        return None
    folder = _folder(given)
    settings = read_json(folder / SETTINGS)
    if settings is None or not (folder / WEIGHTS).is_file():
        missing = SETTINGS if settings is None else WEIGHTS
        raise ConfigError(Problem(SETTING, f"is not an adapter in peft's layout: it has no readable {missing}", given))
    if damaged := damage(folder / WEIGHTS):
        advice = "copy it there again, or use another checkpoint's (RUN@STEP)"
        raise ConfigError(Problem(SETTING, f"{damaged}; {advice}", given))
    if problems := _problems(config, settings, given):
        raise ConfigError(*problems)
    return folder


def _folder(given: str) -> Path:
    """Return the adapter's folder for a folder, a checkpoint's folder, a run or RUN@STEP. Raises ConfigError."""
    path = user_path(given)
    if path.is_dir():
        inside = path / "adapter"
        return (inside if inside.is_dir() else path).absolute()
    if "/" in given:
        raise ConfigError(Problem(SETTING, "there is no such folder", given))
    asked = re.fullmatch(r"(.+)@(\d+)", given)
    reference, step = asked.groups() if asked else (given, "")
    try:
        run = find_run(reference)
    except ConfigError as error:
        message = f"is neither a folder nor a run: {error.problems[0].message}"
        raise ConfigError(Problem(SETTING, message, given)) from error
    kept = {str(one.step): one for one in list_checkpoints(run.checkpoints)}
    if not kept:
        raise ConfigError(Problem(SETTING, f"run {run.name} has no checkpoint yet", given))
    if step and step not in kept:
        steps = ", ".join(reversed(kept))
        raise ConfigError(Problem(SETTING, f"run {run.name} has no checkpoint of this step; it has: {steps}", given))
    return kept[step or next(iter(kept))].adapter.absolute()


def _problems(config: RunConfig, settings: dict[str, Any], given: str) -> list[Problem]:
    """Return why a run cannot start from an adapter with these settings; empty if it can."""
    if settings.get("peft_type") != "LORA":
        return [Problem(SETTING, f"must be a LoRA adapter, not {settings.get('peft_type')}", given)]
    if unusual := [key for key in UNUSUAL if settings.get(key)]:
        return [Problem(SETTING, f"must be a plain LoRA adapter; this one has {', '.join(unusual)}", given)]
    problems = []
    for key, theirs, ours in (
        ("r", settings.get("r"), config.lora.r),
        ("alpha", settings.get("lora_alpha"), config.lora.alpha),
    ):
        if theirs != ours:
            message = f"the adapter of {SETTING} has {theirs}; use the same with: --set lora.{key}={theirs}"
            problems.append(Problem(f"lora.{key}", message, ours))
    base = str(settings.get("base_model_name_or_path") or "")
    if base and not _same_model(base, config.model.id):
        message = (
            f"was trained on {base}, but this run's model.id is {config.model.id}; if these are the same weights, "
            f"correct base_model_name_or_path in its {SETTINGS}"
        )
        problems.append(Problem(SETTING, message, given))
    return problems


def _same_model(base: str, model: str) -> bool:
    """Return whether an adapter's base may be this model, judging by their names."""
    if wheel := wheel_model(model):  # Its adapters name its folder in the cache.
        return wheel.folder.name in Path(base).parts
    return _plain(base) == _plain(model)


def _plain(model: str) -> str:
    """Return a model's name in lower case without its owner or folder, and without the ending of a 4-bit copy."""
    name = model.rstrip("/").rpartition("/")[2].lower()
    for ending in QUANTISED:
        name = name.removesuffix(ending)
    return name


def bring(folder: Path, run: RunDirectory) -> None:
    """Copy the adapter into the run's folder, because the reference needs it for as long as the run trains."""
    run.start_adapter.mkdir(mode=0o700)
    for name in (SETTINGS, WEIGHTS):
        shutil.copyfile(folder / name, run.start_adapter / name)
