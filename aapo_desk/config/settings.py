"""The settings one by one, as a form shows them: allowed values, bounds, and conversion from and to text."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from aapo_desk.config.problems import ConfigError, Problem
from aapo_desk.config.resolving import set_value
from aapo_desk.config.sections import RunConfig, Section

Kind = Literal["choice", "integer", "number", "text", "yaml"]
YES_NO = {True: "yes", False: "no"}


@dataclass(frozen=True)
class Setting:
    """One value of a ``RunConfig``: its path and the contents of its ``Field``."""

    path: str
    kind: Kind
    help: str
    choices: tuple[Any, ...]
    """The values that a ``choice`` offers, in order; empty for the other kinds."""
    bounds: str
    """The bounds in words, such as ``at least 2``; empty if every number is allowed."""
    optional: bool
    """True if the value may be left empty."""
    default: str | None
    """The default as text; None if a value is required."""

    @property
    def section(self) -> str:
        return self.path.partition(".")[0]

    @property
    def name(self) -> str:
        """The last part of the path: the name inside its section."""
        return self.path.rpartition(".")[2]

    def show(self, value: Any) -> str:
        """Return a value as the form shows it. ``read`` is the inverse."""
        return _show(self.kind, value)

    def read(self, text: str) -> Any:
        """Convert the text of the form to a value, without validating it. Raises ConfigError if it is not YAML."""
        match self.kind:
            case "choice":
                return next((choice for choice in self.choices if _show("choice", choice) == text), text)
            case "integer" | "number":
                return set_value(self.path, text.strip())
            case "text" if text.startswith('"'):
                return _yaml(self.path, text)
            case "text":
                return None if self.optional and not text else text
            case "yaml":
                return _yaml(self.path, text) if text.strip() else {}


def settings(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[Setting]:
    """Yield every setting of the schema, in the order of the sections."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from settings(field.annotation, f"{prefix}{name}.")
        else:
            yield _setting(prefix + name, field)


def _setting(path: str, field: FieldInfo) -> Setting:
    annotation, optional = _inner(field.annotation)
    kind: Kind
    choices: tuple[Any, ...] = ()
    if annotation is bool:
        kind, choices = "choice", (True, False)
    elif get_origin(annotation) is Literal:
        kind, choices = "choice", get_args(annotation)
    elif annotation in (int, float):
        kind = "integer" if annotation is int else "number"
    else:
        kind = "text" if annotation is str else "yaml"
    default = None if field.is_required() else _show(kind, field.get_default(call_default_factory=True))
    return Setting(path, kind, field.description or "", choices, _bounds(field), optional, default)


def _inner(annotation: Any) -> tuple[Any, bool]:
    """Return a type without ``None`` and ``Annotated``, and whether it included None."""
    optional = False
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not types.NoneType]
        optional = len(parts) < len(get_args(annotation))
        annotation = parts[0] if len(parts) == 1 else annotation
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation, optional


def _bounds(field: FieldInfo) -> str:
    """Return the bounds of a number, in words."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = [
        f"{word} {getattr(item, name)}"
        for name, word in words.items()
        for item in field.metadata
        if getattr(item, name, None) is not None
    ]
    return ", ".join(found)


def _show(kind: Kind, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return YES_NO[value]
    if kind == "yaml":
        return _yaml_text(_plain(value))
    text = str(value)
    # The form shows one line. Quotes are needed if ``read`` would not return the text unchanged.
    return json.dumps(text, ensure_ascii=False) if text.startswith('"') or "\n" in text else text


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {key: item for key, item in value.model_dump().items() if item != {}}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _yaml_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and not value:
        return ""
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000)
    return text.rstrip("\n")


def _yaml(path: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark and "\n" in text else ""
        reason = getattr(error, "problem", None) or "unreadable"
        raise ConfigError(Problem(path, f"is not valid YAML{line}: {reason}")) from error
    except ValueError as error:  # PyYAML raises it for an impossible date, such as 2024-13-45
        raise ConfigError(Problem(path, f"is not valid YAML: {error}")) from error
