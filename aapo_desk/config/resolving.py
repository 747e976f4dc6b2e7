"""Build a checked configuration from a preset's mapping and ``--set``, or report every problem in it."""

from __future__ import annotations

import difflib
import os
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from aapo_desk.config.algorithms import METHODS, carried_over, misplaced, wrong_updates
from aapo_desk.config.problems import ConfigError, Problem
from aapo_desk.config.sections import AlgorithmConfig, RewardConfig, RunConfig, Section, default_rewards


def user_path(text: str | Path) -> Path:
    """Return the path that a user wrote. A leading ``~`` is expanded if such a user exists, else it stays as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises if there is no such user


PLACE_TO_FILL = re.compile(r"\{\w+\}")


def parse_set(items: Sequence[str]) -> dict[str, Any]:
    """Parse ``["rollout.group_size=16"]`` to ``{"rollout.group_size": 16}``. Values are read as YAML."""
    values: dict[str, Any] = {}
    for item in items:
        path, equals, text = item.partition("=")
        if not equals or not path.strip():
            raise ConfigError(Problem(item, "--set needs PATH=VALUE, such as rollout.group_size=16"))
        values[path.strip()] = set_value(path.strip(), text.strip())
    return values


def set_value(path: str, text: str) -> Any:
    """Return the value of a ``--set``: YAML in flow style, else plain text, as in ``system_prompt=Answer: a number``.

    Text that begins with a placeholder, as a template may (``{answer} it is``), is text and not a YAML mapping.
    """
    if PLACE_TO_FILL.match(text):
        return text
    try:
        value = yaml.safe_load(text) if text else None
    except yaml.YAMLError as error:
        if text.startswith(("{", "[", "'", '"')):
            raise ConfigError(Problem(path, "is not valid YAML", text, "--set")) from error
        return text
    block_style = isinstance(value, dict | list) and not text.startswith(("{", "["))
    return text if block_style else value


def resolve(data: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, origin: str = "") -> RunConfig:
    """Return the configuration in a preset's mapping, with the dotted ``overrides`` applied on top.

    Raises ConfigError with every problem found: its path, the value and where it came from, and what is allowed.
    """
    tree = _copy(data)
    if "rewards" not in tree and any(path.startswith("rewards.") for path in overrides or {}):
        tree["rewards"] = [reward.model_dump() for reward in default_rewards()]
    _change_algorithm(tree, overrides or {})
    for path, value in (overrides or {}).items():
        _put(tree, path, value)
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        problems = [_problem(detail, overrides or {}, origin) for detail in error.errors()]
        # Pydantic reports a value that fits no branch of a union once per branch. The first report is enough.
        firsts = {problem.path: problem for problem in reversed(problems)}
        raise ConfigError(*reversed(firsts.values())) from None
    # This is checked here and not in RunConfig, because the configurations of older runs must still load, even if
    # they set values that have no effect today.
    values = config.algorithm.model_dump()
    if wrong := misplaced(config.algorithm.name, values, _algorithm_defaults()):
        places = {f"algorithm.{key}": message for key, message in wrong.items()}
        found = ((path, message, _where(path, overrides or {}, origin)) for path, message in places.items())
        raise ConfigError(*(Problem(path, message, value_at(config, path), where) for path, message, where in found))
    return config


def _algorithm_defaults() -> dict[str, Any]:
    return {key: field.get_default(call_default_factory=True) for key, field in AlgorithmConfig.model_fields.items()}


def _change_algorithm(tree: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Remove the settings that only the preset's algorithm has, if ``overrides`` name another algorithm."""
    section, name = tree.get("algorithm"), overrides.get("algorithm.name")
    defaults = _algorithm_defaults()
    if not isinstance(section, dict) or not isinstance(name, str) or section.get("name", defaults["name"]) == name:
        return
    tree["algorithm"] = carried_over(section, defaults, name)
    if name in METHODS and wrong_updates(name, _options_in(overrides), 2):
        tree["algorithm"].pop("updates_per_rollout", None)


def _options_in(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the algorithm's own options that are set in ``overrides``."""
    whole, prefix = overrides.get("algorithm.options"), "algorithm.options."
    single = {path.removeprefix(prefix): value for path, value in overrides.items() if path.startswith(prefix)}
    return {**whole, **single} if isinstance(whole, dict) else single


def load_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file. Raises ConfigError that names the file and, if known, the line."""
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
    """Yield every dotted path of a scalar or free-form value, such as ``rollout.group_size``."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from field_paths(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def value_at(config: BaseModel, path: str) -> Any:
    """Return the value at a dotted path."""
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    return value


def differences(base: RunConfig, other: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Return the paths whose values differ, with both values (``base``, ``other``)."""
    pairs = {path: (value_at(base, path), value_at(other, path)) for path in field_paths()}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set ``value`` at a dotted path. A part made of digits is a position in a list, as in ``rewards.0.weight``."""
    parts = path.split(".")
    node: Any = tree
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                here = ".".join(parts[:depth])
                message = f"{here} is a list; use a position from 0 to {len(node) - 1}"
                raise ConfigError(Problem(path, message, value, "--set"))
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
    """Return a pydantic error as a Problem worded for the user."""
    path = ".".join(str(part) for part in _data_path(detail["loc"]))
    where = _where(path, overrides, origin)
    given = detail.get("input")
    context = detail.get("ctx", {})
    if path == "lora.targets":
        return Problem(path, "must be all-linear or a list of layer names", given, where)
    match detail["type"]:
        case "extra_forbidden":
            return Problem(path, "there is no such setting", None, where, nearest_key(path))
        case "invalid_key":
            return Problem(path, "there is no such setting; the name of a setting must be text", None, where)
        case "missing":
            return Problem(path, "is missing", None, where)
        case "literal_error":
            return Problem(path, f"must be {context['expected']}", given, where)
        case "string_pattern_mismatch" if path == "task.source":
            kinds = "arithmetic, countdown, reasoning-gym:NAME, hub:OWNER/DATASET or file:PATH"
            return Problem(path, f"must be {kinds}", given, where)
        case "value_error":
            shown = None if isinstance(given, Mapping | BaseModel) else given
            return Problem(path or "configuration", str(context["error"]), shown, where)
        case _:
            message = re.sub(r"^(Input|String|List) should", "must", detail["msg"])
            message = re.sub(r"a valid dictionary.*", "a mapping", message)
            message = re.sub(r" after validation, not \d+", "", message)
            return Problem(path, message, given, where)


def _where(path: str, overrides: Mapping[str, Any], origin: str) -> str:
    """Return where the value at a path comes from: ``--set`` or ``origin``."""
    set_here = any(f"{item}.".startswith(f"{path}.") or f"{path}.".startswith(f"{item}.") for item in overrides)
    return "--set" if set_here else origin


def _data_path(location: tuple[int | str, ...]) -> Iterator[int | str]:
    """Yield the parts of a pydantic location, without the names of union branches."""
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
    """Return the known path that is most similar to an unknown one, or None if no path is close."""
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
