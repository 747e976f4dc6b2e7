"""Checks that presets are valid, name layers that the model has, match their names, and fit in memory.

Nothing is downloaded, and neither torch nor a GPU is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from aapo_desk import fit, rewards, tasks
from aapo_desk.config import ConfigError, RunConfig, resolve
from aapo_desk.memory import TWINS, ModelShape, plan
from aapo_desk.models.sources import check_id
from aapo_desk.presets import Preset

SCHEME = re.compile(r"(?P<model>.+)_(?P<method>qlora|lora|paper)_(?P<memory>cpu|[1-9]\d*gb)")
"""The pattern of a shipped preset's name. ``paper``: settings of a paper, quantized or not."""

CPU_GIGABYTES = 4
"""Free memory in GB that a preset for the CPU may rely on."""

HEADER = ("Model ", "Needs ", "Trains ", "Launch ")
"""The entries that a shipped preset's header must have, one or more lines each."""


@dataclass(frozen=True)
class Outcome:
    """The result of checking a preset. ``problems`` is empty if it is good."""

    name: str
    own: bool
    problems: tuple[str, ...] = ()
    fit: fit.Fit | None = None
    """None if there was no memory size to check against, or the model's size is unknown."""
    note: str = ""
    """Why ``fit`` is None."""


def check_preset(preset: Preset, gigabytes: float | None = None) -> Outcome:
    """Check one preset. Its memory is checked against a GPU with ``gigabytes``, or by default the size in its name."""
    outcome = Outcome(preset.name, preset.own)
    if preset.error:
        return replace(outcome, problems=(preset.error,))
    try:
        config = resolve(preset.data, origin=preset.path.name)
    except ConfigError as error:
        return replace(outcome, problems=_lines(error))
    problems = [*_refusals(config), *_of_model(config)]
    if not preset.own:
        problems += [*_of_header(preset), *_of_name(preset.name, config)]
    room = _room(preset.name, config, gigabytes)
    if room is None:
        return replace(outcome, problems=tuple(problems), note="its name has no memory size; give one with --vram")
    try:
        shape = fit.shape_of(config.model)
    except ValueError as error:
        return replace(outcome, problems=tuple(problems), note=str(error))
    found = fit.judge(shape, config, room)
    if found.verdict == "too large":
        problems.append(f"needs at least {found.least / 2**30:.1f} GB; {room.name} has {room.free / 2**30:g} GB")
    elif not preset.own and gigabytes is None:
        problems += _of_batches(shape, config, room)
    return replace(outcome, problems=tuple(problems), fit=found)


def _lines(error: ConfigError) -> tuple[str, ...]:
    return tuple(str(problem) for problem in error.problems)


def _refusals(config: RunConfig) -> Iterator[str]:
    """Yield the problems that starting a run would report before loading a model."""
    checks: tuple[Callable[[], None], ...] = (
        lambda: check_id(config.model),
        lambda: tasks.check(config.task),
        lambda: rewards.check(config.rewards),
    )
    for look in checks:
        try:
            look()
        except ConfigError as error:
            yield from _lines(error)


def _of_model(config: RunConfig) -> Iterator[str]:
    """Yield problems with adapter targets that the model lacks, and with texts longer than its context."""
    try:
        said, shape = fit.configuration_of(config.model), fit.shape_of(config.model)
    except ValueError:
        return
    targets = [] if config.lora.targets == "all-linear" else config.lora.targets
    if missing := [target for target in targets if target.rpartition(".")[2] not in shape.targets]:
        yield f"lora.targets: the model has no layers {', '.join(missing)}; it has {', '.join(sorted(shape.targets))}"
    longest = (said.get("text_config") or said).get("max_position_embeddings")
    wanted = config.task.max_prompt_tokens + max(config.rollout.max_new_tokens, config.evaluation_tokens)
    if longest and wanted > longest:
        yield f"prompt and completion may have {wanted} tokens; the model's context is {longest}"


def _of_header(preset: Preset) -> Iterator[str]:
    text = "\n".join(preset.notes)
    missing = [word.strip() for word in HEADER if not re.search(rf"^{word}", text, flags=re.MULTILINE)]
    if missing:
        yield f"its header lacks: {', '.join(missing)}"
    if "gated" not in text.lower():
        yield "its header does not say whether the model is gated"
    launch = "aapo-desk demo" if preset.name == "demo" else f"aapo-desk train {preset.name}"
    if not text.endswith(launch):
        yield f"its header does not end in: Launch   {launch}"


def _of_name(name: str, config: RunConfig) -> Iterator[str]:
    """Yield the differences between a preset's name and its settings."""
    if name == "demo":
        return
    said = SCHEME.fullmatch(name)
    if said is None:
        yield "its name is not MODEL_METHOD_MEMORY, such as qwen3-1.7b_qlora_12gb"
        return
    model = config.model.id.rpartition("/")[2]
    for twin in TWINS:
        model = model.removesuffix(twin)
    if not f"-{model.lower()}".endswith(f"-{said['model']}"):
        yield f"its name says {said['model']}, its model is {config.model.id}"
    quantization = {"qlora": "nf4", "lora": "none"}.get(said["method"], config.model.quantization)
    if quantization != config.model.quantization:
        yield f"its name says {said['method']}, its model.quantization is {config.model.quantization}"
    if (said["memory"] != "cpu") != (config.model.device == "cuda"):
        yield f"its name says {said['memory']}, its model.device is {config.model.device}"


def _of_batches(shape: ModelShape, config: RunConfig, room: fit.Room) -> Iterator[str]:
    """Yield a problem if batches are so small that training would crawl: below a group of policy and reference each."""
    rows = plan(shape, config, room.free, room.device).batch_rows
    if rows < 2 * config.rollout.group_size:
        yield f"decodes only {rows} completions at once in {room.free / 2**30:g} GB"


def _room(name: str, config: RunConfig, gigabytes: float | None) -> fit.Room | None:
    """Return the memory to check a preset against, or None if neither the name nor ``gigabytes`` gives one."""
    said = SCHEME.fullmatch(name)
    memory = "cpu" if name == "demo" else said["memory"] if said else None
    if gigabytes is None:
        if memory is None:
            return None
        gigabytes = CPU_GIGABYTES if memory == "cpu" else int(memory.removesuffix("gb"))
        device = "cpu" if memory == "cpu" else "cuda"
    else:
        device = "cpu" if config.model.device == "cpu" else "cuda"
    size = int(gigabytes * 2**30)
    name = "such a computer" if device == "cpu" else "such a GPU"
    return fit.Room("cpu" if device == "cpu" else "cuda", name, size, size)
