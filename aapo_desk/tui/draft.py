"""A configuration being edited: the texts in the form's fields, their errors, and the changes they make."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from aapo_desk.config import ConfigError, Problem, RunConfig, Setting, differences, resolve, settings, value_at


@dataclass(frozen=True)
class Checked:
    """The result of checking a draft. ``config`` is None if there are ``errors``."""

    config: RunConfig | None
    errors: dict[str, str] = field(default_factory=dict)
    """Error messages by the path of a setting, or of a section if they concern all of it."""
    changes: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The preset's value and the new value, as text, by the path of a setting."""


class Draft:
    """A preset's configuration plus the user's edits."""

    def __init__(self, base: RunConfig) -> None:
        self.base = base
        self._edits: dict[str, str] = {}

    @cached_property
    def settings(self) -> dict[str, Setting]:
        """All settings by path, in the order of the form."""
        return {setting.path: setting for setting in settings()}

    def preset_text(self, path: str) -> str:
        """Return the preset's value at a path, as text."""
        return self.settings[path].show(value_at(self.base, path))

    def text(self, path: str) -> str:
        """Return the text in the form's field for a path."""
        return self._edits.get(path, self.preset_text(path))

    def edit(self, path: str, text: str) -> None:
        """Set the text of a path. The preset's own text removes the edit."""
        if text == self.preset_text(path):
            self._edits.pop(path, None)
        else:
            self._edits[path] = text

    def check(self) -> Checked:
        """Validate the edits with the rules and error messages of the ``--set`` option."""
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
        """Return one error message for each setting that a problem concerns, or for the section if it names none.

        If several problems concern the same setting, the first one is kept.
        """
        errors: dict[str, str] = {}
        for problem in problems:
            for path in self._concerned(problem):
                errors.setdefault(path, _wording(problem, path))
        return errors

    def _concerned(self, problem: Problem) -> list[str]:
        inside = [path for path in self.settings if f"{problem.path}.".startswith(f"{path}.")]
        if inside:
            return inside
        # A problem of a combination of settings: find those that it names, by path or by name within the section.
        words = set(re.findall(r"[\w.]+", problem.message))
        prefix = f"{problem.path}."
        named = [
            path
            for path in self.settings
            if path in words or (path.startswith(prefix) and path.removeprefix(prefix) in words)
        ]
        return named or [problem.path]


def _wording(problem: Problem, path: str) -> str:
    """Return the problem's message, prefixed with the rest of its path if it is inside the setting's value."""
    rest = problem.path.removeprefix(path).lstrip(".") if problem.path.startswith(path) else ""
    nearest = f"; did you mean {problem.nearest}?" if problem.nearest else ""
    return f"{rest}: {problem.message}{nearest}" if rest else f"{problem.message}{nearest}"
