"""The app's preferences, saved between sessions: the theme."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from aapo_desk.presets import settings_folder
from aapo_desk.store import read_json, write_atomically
from aapo_desk.tui.theme import DARK, THEMES


@dataclass(frozen=True)
class Settings:
    """The preferences, with their defaults."""

    theme: str = DARK.name


def settings_file() -> Path:
    return settings_folder() / "screen.json"


def load_settings() -> Settings:
    """Read the saved preferences. A file that is missing, broken or from another version gives the defaults."""
    theme = (read_json(settings_file()) or {}).get("theme")
    return Settings(theme) if isinstance(theme, str) and theme in THEMES else Settings()


def save_settings(settings: Settings) -> None:
    """Write the preferences to ``settings_file()``. Raises OSError if the file cannot be written."""
    path = settings_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, json.dumps(asdict(settings)) + "\n", durable=False)
