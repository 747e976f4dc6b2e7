"""Model ids: a folder, a GGUF file in a wheel, or a name on the hub. Imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs

WHEEL_ID = re.compile(
    r"pip:(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.+!_-]+)/(?P<member>[^#]+\.gguf)#sha256=(?P<sha256>[0-9a-f]{64})"
)

NO_MODEL = "none"
"""The id in a configuration for which the model does not matter."""


@dataclass(frozen=True)
class WheelModel:
    """A GGUF file inside a wheel, pinned by its SHA-256."""

    name: str
    version: str
    member: str
    sha256: str

    @property
    def folder(self) -> Path:
        """Return the model's folder in the user's cache."""
        stem = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(self.member).stem)
        return platformdirs.user_cache_path("aapo-desk") / "models" / f"{stem}-{self.sha256[:12]}"


def is_folder(model_id: str) -> bool:
    """Return whether an id means a local folder: because it looks like a path, or because the folder exists."""
    return model_id.startswith(("/", "./", "../", "~")) or Path(model_id).is_dir()


def wheel_model(model_id: str) -> WheelModel | None:
    match = WHEEL_ID.fullmatch(model_id)
    return WheelModel(**match.groupdict()) if match else None
