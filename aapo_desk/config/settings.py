"""The settings one by one, as a form shows them: what may stand there, from when to when, and as which text."""

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
    """One value of a ``RunConfig``: its path and what its ``Field`` says."""

    path: str
    kind: Kind
    help: str
    choices: tuple[Any, ...]
    """What a ``choice`` chooses from, in order; empty for the others."""
    bounds: str
    """In words, as ``at least 2``; empty where every number is allowed."""
    optional: bool
    """Whether it may be left empty."""
    default: str | None
    """As text; None where a value must be given."""

    @property
    def section(self) -> str:
        return self.path.partition(".")[0]

    @property
    def name(self) -> str:
        """Its name inside its section."""
        return self.path.rpartition(".")[2]

    def show(self, value: Any) -> str:
        """A value as it stands in the form. ``read`` gives the value back."""
        return _show(self.kind, value)

    def read(self, text: str) -> Any:
        """The value of a text, not yet checked. Raises ConfigError where it is no YAML."""
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
    """Every setting, in the order of the sections: one walk over the schema."""
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
    """A type without ``None`` and without what is said of it, and whether None was in it."""
    optional = False
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not types.NoneType]
        optional = len(parts) < len(get_args(annotation))
        annotation = parts[0] if len(parts) == 1 else annotation
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation, optional


def _bounds(field: FieldInfo) -> str:
    """The bounds of a number, in words."""
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
    # One line, in quotes where it would not be read as it stands.
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
    except ValueError as error:  # a date that is none
        raise ConfigError(Problem(path, f"is not valid YAML: {error}")) from error
