"""Presets: YAML configuration files that are shipped with the package or written by the user.

The first comment line of a preset is its title; the comment lines after it say what it needs and how to launch it. A
user's own preset takes precedence over a shipped one of the same name.
"""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from aapo_desk.config import ConfigError, Problem, RunConfig, load_yaml, resolve, user_path

SUFFIXES = (".yaml", ".yml")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Preset:
    """A preset file: its mapping as read, not yet validated as a ``RunConfig``.

    ``notes`` are the comment lines of the header after the title. ``error`` says why the file could not be read; then
    ``data`` is empty. ``own``: whether it is the user's own preset.
    """

    name: str
    path: Path
    title: str
    notes: list[str]
    data: dict[str, Any] = field(default_factory=dict)
    own: bool = False
    error: str | None = None


def shipped_folder() -> Path:
    """Return the folder of shipped presets: inside the installed package, or next to it in a source checkout."""
    package = Path(__file__).parent
    installed = package / "_presets"
    return installed if installed.is_dir() else package.parent / "presets"


def settings_folder() -> Path:
    """Return ``$AAPO_DESK_CONFIG`` or, if that is not set, the platform's folder for user settings."""
    chosen = os.environ.get("AAPO_DESK_CONFIG")
    return user_path(chosen) if chosen else platformdirs.user_config_path("aapo-desk")


def own_folder() -> Path:
    """Return the folder of the user's own presets."""
    return settings_folder() / "presets"


def list_presets() -> list[Preset]:
    """Return all presets, sorted by name. One that cannot be read is included, with its ``error``."""
    found: dict[str, Preset] = {}
    for folder, own in ((shipped_folder(), False), (own_folder(), True)):
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.suffix in SUFFIXES:
                preset = _read(path, own)
                found[preset.name] = preset
    return [found[name] for name in sorted(found)]


def find(name_or_path: str) -> Preset:
    """Return the preset with this name or path. Raises ConfigError with the nearest name, or why it cannot be read."""
    preset = locate(name_or_path)
    if preset.error:
        raise ConfigError(Problem("preset", preset.error))
    return preset


def locate(name_or_path: str) -> Preset:
    """Return the preset as ``find`` does, but one that cannot be read is returned with its ``error``."""
    path = user_path(name_or_path)
    preset = named(name_or_path)
    if preset is None and path.is_file():
        preset = _read(path, own=True)
    if preset is None and path.suffix in SUFFIXES and path.name == name_or_path:
        preset = named(path.stem)
    if preset is None:
        raise ConfigError(_unknown(name_or_path, path))
    return preset


def named(name: str) -> Preset | None:
    """Return the user's own preset with this name, else the shipped one, else None. It may have an ``error``."""
    if not name or "/" in name:
        return None
    # Read only this file, because the UI waits for the result.
    for folder, own in ((own_folder(), True), (shipped_folder(), False)):
        for suffix in SUFFIXES:
            path = folder / f"{name}{suffix}"
            if path.is_file():
                return _read(path, own)
    return None


def _unknown(name: str, path: Path) -> Problem:
    if path.suffix in SUFFIXES or path.name != name:
        return Problem("preset", "the file does not exist", name)
    names = [preset.name for preset in list_presets()]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    message = "there is no such preset; to list all presets: aapo-desk presets"
    return Problem("preset", message, name, nearest=close[0] if close else None)


def load(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Return the configuration of a preset with dotted ``overrides`` applied. Raises ConfigError."""
    preset = find(name_or_path)
    return resolve(preset.data, overrides, origin=preset.path.name)


def check_name(name: str) -> None:
    """Check that ``name`` can be a preset's name. Raises ConfigError."""
    if name.endswith(SUFFIXES):
        raise ConfigError(Problem("preset", f"give the name without the file ending: {Path(name).stem}", name))
    if not NAME.fullmatch(name):
        message = "a name has at most 100 letters, digits, . _ or -, and begins with a letter or a digit"
        raise ConfigError(Problem("preset", message, name))


def save_preset(name: str, config: RunConfig, notes: Sequence[str] = ()) -> Path:
    """Write a user's own preset and return its path.

    An own preset of the same name is replaced; a shipped one is kept, but the new preset takes precedence. The file has
    the values that differ from the defaults, below a header with ``notes`` (one line each) and the launch line. It is
    written atomically. Raises ConfigError for an invalid name or a folder that cannot be written.
    """
    check_name(name)
    folder = own_folder()
    old = named(name)
    path = old.path if old and old.own else folder / f"{name}{SUFFIXES[0]}"
    lines = [name, "", *notes, "", f"Launch   aapo-desk train {name}"]
    header = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    values = config.model_dump(mode="json", exclude_defaults=True)
    body = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, suffix=".new", delete=False) as aside:
            aside.write(f"{header}\n{body}")
        Path(aside.name).replace(path)
    except OSError as error:
        raise ConfigError(Problem("preset", f"cannot write to {folder}: {error.strerror or error}")) from error
    return path


def _read(path: Path, own: bool) -> Preset:
    try:
        data = load_yaml(path)
    except ConfigError as error:
        return Preset(path.stem, path, path.stem, [], own=own, error=str(error))
    header = _header(path.read_text(encoding="utf-8"))
    title = header[0] if header else path.stem
    notes = "\n".join(header[1:]).strip("\n").splitlines()
    return Preset(path.stem, path, title, notes, data, own)


def _header(text: str) -> list[str]:
    """Return the comment lines at the start of a file, without # marks and leading blank lines."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").removeprefix(" ").rstrip())
    return "\n".join(lines).lstrip("\n").splitlines()
