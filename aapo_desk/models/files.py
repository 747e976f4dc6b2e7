"""Which files of a model's repository a run needs: settings, tokenizer and safetensors. Pickles are never read."""

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
    """The model's and the tokenizer's settings, and the list of the weights where they are in several files.

    Those of other formats' weights are left out; ``with_code`` takes the Python files too.
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
    """The safetensors files that make up the weights; none where there are none. The list, if any, is in ``folder``.

    Raises ValueError for a list that cannot be read.
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
    """Weights in a form that is not read, for the line that says so."""
    found = [name for name in names if "/" not in name and name.endswith((*PICKLES, ".gguf", ".h5", ".msgpack"))]
    return [name for name in found if name != "training_args.bin"]
