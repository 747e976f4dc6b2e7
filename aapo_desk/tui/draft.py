"""A configuration being edited: the texts as they stand in the form, what is wrong with them, what they change."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from aapo_desk.config import ConfigError, Problem, RunConfig, Setting, differences, resolve, settings, value_at


@dataclass(frozen=True)
class Checked:
    """What a draft comes to. ``config`` is None where there are ``errors``."""

    config: RunConfig | None
    errors: dict[str, str] = field(default_factory=dict)
    """By the path of a setting, or of the section that they concern as a whole."""
    changes: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By the path of a setting: the preset's value and the new one, as text."""


class Draft:
    """A preset's configuration with edits laid over it."""

    def __init__(self, base: RunConfig) -> None:
        self.base = base
        self._edits: dict[str, str] = {}

    @cached_property
    def settings(self) -> dict[str, Setting]:
        """All settings by path, in order."""
        return {setting.path: setting for setting in settings()}

    def preset_text(self, path: str) -> str:
        """What the preset has at a path."""
        return self.settings[path].show(value_at(self.base, path))

    def text(self, path: str) -> str:
        """What the form has at a path."""
        return self._edits.get(path, self.preset_text(path))

    def edit(self, path: str, text: str) -> None:
        """Put a text at a path."""
        if text == self.preset_text(path):
            self._edits.pop(path, None)
        else:
            self._edits[path] = text

    def check(self) -> Checked:
        """Resolve the edits: by the rules and with the messages of ``--set``."""
        values: dict[str, Any] = {}
        problems: list[Problem] = []
        for path, text in self._edits.items():
            try:
                values[path] = self.settings[path].read(text)
            except ConfigError as error:
                problems += error.problems
        config = None
        try:
            config = resolve(self.base.model_dump(), values)
        except ConfigError as error:
            problems += error.problems
        changed = dict.fromkeys(self._edits) if problems or config is None else differences(self.base, config)
        changes = {path: (self.preset_text(path), self.text(path)) for path in self.settings if path in changed}
        return Checked(None if problems else config, self.place(problems), changes)

    def place(self, problems: Iterable[Problem]) -> dict[str, str]:
        """Each problem beside the settings it is about, else at its section; the first of several counts."""
        errors: dict[str, str] = {}
        for problem in problems:
            for path in self._concerned(problem):
                errors.setdefault(path, _wording(problem, path))
        return errors

    def _concerned(self, problem: Problem) -> list[str]:
        inside = [path for path in self.settings if f"{problem.path}.".startswith(f"{path}.")]
        if inside:
            return inside
        # A combination: the settings it names, by their paths or by their names in the section.
        words = set(re.findall(r"[\w.]+", problem.message))
        prefix = f"{problem.path}."
        named = [
            path
            for path in self.settings
            if path in words or (path.startswith(prefix) and path.removeprefix(prefix) in words)
        ]
        return named or [problem.path]


def _wording(problem: Problem, path: str) -> str:
    """The problem's message; where it lies deeper than the setting, with the rest of the way."""
    rest = problem.path.removeprefix(path).lstrip(".") if problem.path.startswith(path) else ""
    nearest = f"; did you mean {problem.nearest}?" if problem.nearest else ""
    return f"{rest}: {problem.message}{nearest}" if rest else f"{problem.message}{nearest}"
