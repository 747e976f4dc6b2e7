"""Whether presets hold what they promise: valid, of layers the model has, as their name says, and within the memory.

Nothing is fetched, and neither torch nor a card is needed.
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
"""What a shipped preset's name says. ``paper``: settings of a paper, quantised or not."""

CPU_GIGABYTES = 4
"""Free memory that a preset for the processor may count on."""

HEADER = ("Model ", "Needs ", "Trains ", "Launch ")
"""What a shipped preset's header says, a line or more each."""


@dataclass(frozen=True)
class Outcome:
    """What was found of a preset. ``problems`` is empty where it is good."""

    name: str
    own: bool
    problems: tuple[str, ...] = ()
    fit: fit.Fit | None = None
    """None: there was nothing to hold it against, or the model's size is not known."""
    note: str = ""
    """Why its fit is not known."""


def check_preset(preset: Preset, gigabytes: float | None = None) -> Outcome:
    """Look at one preset. Its memory is held against a card of ``gigabytes``, else against what its name says."""
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
        return replace(outcome, problems=tuple(problems), note="its name says no memory; --vram does")
    try:
        shape = fit.shape_of(config.model)
    except ValueError as error:
        return replace(outcome, problems=tuple(problems), note=str(error))
    found = fit.judge(shape, config, room)
    if found.verdict == "too large":
        problems.append(f"takes {found.least / 2**30:.1f} GB at the least; {room.name} has {room.free / 2**30:g} GB")
    elif not preset.own and gigabytes is None:
        problems += _of_batches(shape, config, room)
    return replace(outcome, problems=tuple(problems), fit=found)


def _lines(error: ConfigError) -> tuple[str, ...]:
    return tuple(str(problem) for problem in error.problems)


def _refusals(config: RunConfig) -> Iterator[str]:
    """What a start would refuse without a model at hand."""
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
    """Adapters on layers that the model has not, and texts longer than it can read."""
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
        yield f"prompt and completion may have {wanted} tokens; the model reads {longest}"


def _of_header(preset: Preset) -> Iterator[str]:
    text = "\n".join(preset.notes)
    missing = [word.strip() for word in HEADER if not re.search(rf"^{word}", text, flags=re.MULTILINE)]
    if missing:
        yield f"its header does not say: {', '.join(missing)}"
    if "gated" not in text.lower():
        yield "its header does not say whether the model is gated"
    launch = "aapo-desk demo" if preset.name == "demo" else f"aapo-desk train {preset.name}"
    if not text.endswith(launch):
        yield f"its header does not end in: Launch   {launch}"


def _of_name(name: str, config: RunConfig) -> Iterator[str]:
    """What a name promises and the preset does not hold."""
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
    """Batches so small that it would train, but at a crawl: less than a group of the policy's and the reference's."""
    rows = plan(shape, config, room.free, room.device).batch_rows
    if rows < 2 * config.rollout.group_size:
        yield f"only {rows} completions at once in {room.free / 2**30:g} GB"


def _room(name: str, config: RunConfig, gigabytes: float | None) -> fit.Room | None:
    """The memory to hold a preset against."""
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
    name = "such a machine" if device == "cpu" else "such a card"
    return fit.Room("cpu" if device == "cpu" else "cuda", name, size, size)
