"""Select the files of a model's repository that a run needs: settings, tokenizer, safetensors. Never pickles."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SETTINGS = (".json", ".txt", ".model", ".tiktoken", ".jinja")
TEMPLATES = "additional_chat_templates"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def settings_files(names: Iterable[str], with_code: bool = False) -> list[str]:
    """Return the settings files of model and tokenizer, and the index of the weights if they are in several files.

    Indexes of weights in other formats are left out; ``with_code`` includes the Python files too.
    """
    suffixes = (*SETTINGS, ".py") if with_code else SETTINGS
    found = []
    for path in map(PurePosixPath, names):
        place = path.parent.as_posix()
        index = path.name.endswith(".index.json")
        code = with_code and path.suffix == ".py"
        if (place in (".", TEMPLATES) or code) and path.suffix in suffixes and (not index or path.name == INDEX):
            found.append(path.as_posix())
    return found


def weight_files(names: Iterable[str], folder: Path) -> list[str]:
    """Return the safetensors files of the weights; empty if there are none. The index, if any, is in ``folder``.

    Raises ValueError if the index cannot be read.
    """
    names = set(names)
    if WEIGHTS in names:
        return [WEIGHTS]
    if INDEX not in names:
        return []
    try:
        shards = json.loads((folder / INDEX).read_bytes())["weight_map"].values()
        return sorted({str(name) for name in shards})
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{INDEX} cannot be read") from error


def other_weights(names: Iterable[str]) -> list[str]:
    """Return the names of weights in formats that are not supported, for the error message."""
    found = [name for name in names if "/" not in name and name.endswith((*PICKLES, ".gguf", ".h5", ".msgpack"))]
    return [name for name in found if name != "training_args.bin"]
